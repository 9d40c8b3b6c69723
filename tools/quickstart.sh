#!/usr/bin/env bash
# From nothing to labelled streets on two CPU cores: train on drawn scenes, score, predict three sizes (`make quickstart`).
#   PYTHON  interpreter that has fastseg's dependencies; RUN  folder for results; arguments go to the training.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHON=${PYTHON:-python}
run=${RUN:-runs/quickstart}
start=$SECONDS

# two gloo processes whose batch norm shares its statistics, as on two GPUs; --resume goes on after an interruption
NPROC=2 bash exp/road_scenes_fast_scnn.sh train.device=cpu train.norm=gloo run_dir="$run" --resume auto "$@"
trained=$SECONDS
"$PYTHON" -m fastseg eval "$run" --device cpu --data-args height=160 width=320 --json "$run/test.json"
"$PYTHON" -m fastseg demo --seed 1000 --scenes "$run/streets" --sizes 512x256 640x360 333x517
"$PYTHON" -m fastseg predict "$run/streets" --weights "$run" --device cpu --out "$run/overlays" --overwrite

echo
echo "trained in $((trained - start)) s, all done in $((SECONDS - start)) s"
echo "look at: $run/overlays/*.png (scores: $run/test.json)"
