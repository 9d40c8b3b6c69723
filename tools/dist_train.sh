#!/usr/bin/env bash
# tools/dist_train.sh CONFIG [KEY=VALUE ...] [--resume auto]: train on one machine, from any folder.
#   NPROC   number of processes (default: one per visible GPU, else 1)
#   RESTARTS  how often a job that lost a process is started again, which goes on from its checkpoints (default: 0)
#   PYTHON  the interpreter (default: python, or .venv's where python has no torch)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
has_torch() { "$1" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' >/dev/null 2>&1; }
python=${PYTHON:-$(command -v python || command -v python3)}
if ! has_torch "$python" && [[ -z ${PYTHON:-} ]]; then
    python=$root/.venv/bin/python # what make set up
fi
if ! has_torch "$python"; then
    echo "fastseg: error: $python has no torch; activate the environment that fastseg is installed in, or set PYTHON" >&2
    exit 2
fi
# this clone's code, whichever fastseg is installed
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

# configurations are named from the clone's root; everything else belongs to the folder we are in
if [[ $# -gt 0 && ! -e $1 && -e $root/$1 ]]; then
    set -- "$root/$1" "${@:2}"
fi

nproc=${NPROC:-$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
for argument; do
    if [[ $argument == *.sh ]]; then nproc=1; fi # `bash exp/*.sh` is a mistake, which one process answers in one line
done
cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > nproc ? cores / nproc : 1))}

# glibc hands every large activation back to the kernel and faults it in again: a fifth of a training step on the CPU.
# These settings keep the memory; they cost some of it and change no result. Your own settings win.
export MALLOC_MMAP_MAX_=${MALLOC_MMAP_MAX_:-0}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-4294967296}
export MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_:-268435456}

if [[ $nproc -eq 1 ]]; then
    exec "$python" -m fastseg train "$@" # one process needs no launcher, and its errors stay one line
fi
exec "$python" -m torch.distributed.run --standalone --nproc-per-node "$nproc" --max-restarts "${RESTARTS:-0}" -m fastseg train "$@"
