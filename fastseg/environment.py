"""What a run ran on: versions, devices, threads, the git commit, and packages that are not what their names say."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from fastseg.version import __version__

DISTRIBUTION = "fastseg-zoo"
CORE_PACKAGES = (
    *("numpy", "pillow", "opencv-python-headless", "omegaconf", "PyYAML", "safetensors", "tqdm"),
    *("tensorboard",),
)


def describe_environment() -> dict[str, Any]:
    """Everything that `fastseg env` shows and a run keeps beside its results, as plain Python for JSON.

    Never raises for what is missing or broken: the value then says why. `warnings` holds whole sentences.
    """
    return {
        "fastseg": {"version": __version__, "folder": str(Path(__file__).parent)},
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "torch": _torch(),
        "torchvision": _torchvision(),
        "cpu": {
            "name": processor_name(),
            "cores": usable_cores(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "packages": {name: _version(name) for name in CORE_PACKAGES},
        "git": _own_git_state(),
        "warnings": [*_foreign_fastseg(), *_wrong_apex()],
    }


def environment_text(environment: dict[str, Any]) -> str:
    """The environment as aligned lines for people; warnings last."""
    torch, torchvision, git = environment["torch"], environment["torchvision"], environment["git"]
    python, cpu = environment["python"], environment["cpu"]
    rows = [
        ("fastseg", f"{environment['fastseg']['version']} in {environment['fastseg']['folder']}"),
        ("python", f"{python['version']}, {python['executable']}"),
        ("platform", python["platform"]),
        ("torch", torch.get("error") or f"{torch['version']}, built for {_built_for(torch)}"),
        ("torchvision", torchvision.get("error") or torchvision["version"]),
        ("cpu", f"{cpu['name']}, {cpu['cores']} cores, {torch.get('threads', '?')} torch threads"),
    ]
    for index, gpu in enumerate(torch.get("gpus", [])):
        rows.append((f"cuda:{index}", f"{gpu['name']}, {gpu['memory_gib']} GiB, compute {gpu['capability']}"))
    if not torch.get("gpus"):
        rows.append(("cuda", "no device visible"))
    rows += [(name, version or "not installed") for name, version in environment["packages"].items()]
    rows.append(
        ("git", f"{git['commit'][:12]}{', with changes' if git['changed'] else ''}" if git else "no repository")
    )
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += [f"warning: {sentence}" for sentence in environment["warnings"]]
    return "\n".join(lines)


def _own_git_state() -> dict[str, Any] | None:
    """The commit of this code where it runs from a clone, not of a repository that merely surrounds an installation."""
    here = Path(__file__)
    tracked = _git(here.parent, "ls-files", "--error-unmatch", here.name)
    return git_state(here.parent) if tracked else None


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository around `folder`, and whether tracked files differ from it; None outside of one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _built_for(torch: dict[str, Any]) -> str:
    if torch["cuda"]:
        return f"CUDA {torch['cuda']}"
    return f"ROCm {torch['rocm']}" if torch["rocm"] else "CPU"


def processor_name() -> str:
    """What the processor calls itself, or its architecture where nobody says."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _torch() -> dict[str, Any]:
    try:
        import torch
    except Exception as error:  # a broken install raises OSError as well as ImportError
        return {"error": f"cannot be imported: {_one_line(error)}"}
    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            gpus.append(
                {
                    "name": found.name,
                    "memory_gib": round(found.total_memory / 2**30, 1),
                    "capability": f"{found.major}.{found.minor}",
                }
            )
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "rocm": getattr(torch.version, "hip", None),
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def _torchvision() -> dict[str, Any]:
    """Only an import tells: builds for another torch (CPU beside CUDA) are installed well and raise when imported."""
    version = _version("torchvision")
    if version is None:
        return {"version": None, "error": "not installed"}
    try:
        import_module("torchvision")
    except Exception as error:
        advice = "install torch and torchvision together, from one index"
        return {"version": version, "error": f"{version} cannot be imported: {_one_line(error)}; {advice}"}
    return {"version": version}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores that this process may run on."""
    with contextlib.suppress(AttributeError):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _foreign_fastseg() -> list[str]:
    """PyPI's `fastseg` is another author's package with the same import name."""
    version = _version("fastseg")
    if version is None:
        return []
    return [
        f"the distribution 'fastseg' {version} is installed: another project with the same import name, which may be "
        f"loaded instead of this one; run `pip uninstall fastseg`, then reinstall {DISTRIBUTION}"
    ]


def _wrong_apex() -> list[str]:
    """PyPI's `apex` is a web toolkit; NVIDIA's has `apex.parallel.SyncBatchNorm`."""
    version = _version("apex")
    try:
        if hasattr(import_module("apex.parallel"), "SyncBatchNorm"):
            return []
    except Exception:  # the web toolkit's own imports fail in many ways
        if version is None:
            return []
    return [
        f"the installed 'apex' {version or ''} is not NVIDIA apex (no apex.parallel.SyncBatchNorm); nothing here needs "
        "it: train.norm=sync is torch's own"
    ]


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}").strip()[:300]
