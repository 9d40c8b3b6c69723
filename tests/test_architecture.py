"""The house keeps its shape: import ranks, what an import may load, one interpolation, recipes and their scripts."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastseg"

# unit -> rank; a unit may import units of lower rank only. A package's parts may import one another.
RANKS = {
    **dict.fromkeys(
        (
            "errors",
            "registry",
            "types",
            "config",
            "metrics",
            "version",
            "environment",
            "atomic",
            "layers.resize",
            "native",
            "memory",
            "quiet",
            "signal_stack",
            "failpoints",
            "locks",
            "parent",
        ),
        0,
    ),
    **dict.fromkeys(("layers", "ops"), 1),
    **dict.fromkeys(("models", "losses", "data", "deploy"), 2),
    "weights": 3,
    "predict": 4,
    "engine": 5,
    "cli": 6,
    "__main__": 7,
}
# files that belong to another unit, and the facade, which hands out lazily what others make
SAME_UNIT = dict.fromkeys(
    (
        "output",
        "inputs",
        "folders",
        "pipeline",
        "contact_sheet",
        "views",
        "inference",
        "memory_budget",
        "budget",
        "frames",
        "sinks",
        "video",
        "edges",
        "exported",
        "export_info",
        "journal",
    ),
    "predict",
)
FACADE = PACKAGE / "__init__.py"
# a method of the vocabulary that hands out, lazily, what stands above it
UPWARDS = {("types", "fastseg.deploy")}
RANK_ZERO = {unit for unit, rank in RANKS.items() if rank == 0}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(dotted: str) -> str:
    """'fastseg.layers.conv' -> 'layers'."""
    parts = dotted.split(".")[1:]
    if parts[:2] == ["layers", "resize"]:
        return "layers.resize"
    return SAME_UNIT.get(parts[0], parts[0]) if parts else ""


def dotted_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of everything of fastseg that a file imports, also inside functions and for typing only."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "fastseg"]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write it from fastseg"
            if node.module == "fastseg" or (node.module == "fastseg.layers" and unit_of(dotted_name(path)) != "layers"):
                found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
            elif node.module and node.module.startswith("fastseg."):
                found.append((node.lineno, node.module))
    return found


def violations(path: Path, imports: list[tuple[int, str]]) -> list[str]:
    """Imports that break the ranking. Rank 0 may import rank 0: it is a handful of single files."""
    own = unit_of(dotted_name(path))
    out = []
    for line, name in imports:
        other = unit_of(name)
        both_zero = own in RANK_ZERO and other in RANK_ZERO
        if (own, name) not in UPWARDS and other != own and not both_zero and RANKS[other] >= RANKS[own]:
            out.append(f"{path.relative_to(ROOT)}:{line}: {own} (rank {RANKS[own]}) imports {name} ({RANKS[other]})")
    return out


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter at the clone's root."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_every_module_belongs_to_a_rank() -> None:
    unknown = {unit_of(dotted_name(path)) for path in modules() if path != FACADE} - RANKS.keys()
    assert not unknown, f"give {unknown} a rank here and in CONTRIBUTING.md"


def test_imports_follow_the_ranking() -> None:
    broken = [text for path in modules() if path != FACADE for text in violations(path, imported(path))]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("importer", "imports"),
    [
        ("models/fast_scnn.py", "fastseg.data.readers"),
        ("data/camvid.py", "fastseg.losses"),
        ("losses/pixel.py", "fastseg.models"),
        ("predict.py", "fastseg.engine.evaluate"),
        ("layers/conv.py", "fastseg.models"),
        ("types.py", "fastseg.layers.conv"),
        ("engine/train.py", "fastseg.cli"),
    ],
)
def test_the_ranking_refuses_imports_upwards_and_sideways(importer: str, imports: str) -> None:
    assert violations(PACKAGE / importer, [(1, imports)])


@pytest.mark.parametrize(
    ("importer", "imports"),
    [
        ("types.py", "fastseg.layers.resize"),
        ("engine/train.py", "fastseg.predict"),
        ("layers/pyramid_pooling.py", "fastseg.layers.resize"),
        ("cli/train.py", "fastseg.engine.train"),
    ],
)
def test_the_ranking_allows_imports_downwards(importer: str, imports: str) -> None:
    assert not violations(PACKAGE / importer, [(1, imports)])


def test_importing_models_loads_no_data_engine_yaml_or_image_library() -> None:
    forbidden = "fastseg.data fastseg.engine fastseg.predict yaml omegaconf cv2 PIL torchvision"
    done = python(f"import sys, fastseg.models; print([m for m in '{forbidden}'.split() if m in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_importing_fastseg_or_its_command_loads_no_heavy_library() -> None:
    forbidden = "torch numpy yaml omegaconf PIL cv2 tqdm"
    done = python(f"import sys, fastseg, fastseg.cli; print([m for m in '{forbidden}'.split() if m in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_everything_imports_where_torchvision_raises() -> None:
    """A CPU torch beside a CUDA torchvision raises RuntimeError, not ImportError, when torchvision is imported."""
    left_out = {"__main__.py"} if find_spec("triton") else {"__main__.py", "triton_upsample_argmax.py"}
    names = [dotted_name(path) for path in modules() if path.name not in left_out]
    done = python(
        "import importlib, sys\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torchvision':\n"
        "            raise RuntimeError('operator torchvision::nms does not exist')\n"
        "sys.meta_path.insert(0, Broken())\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "from fastseg.environment import describe_environment\n"
        "print(describe_environment()['torchvision']['error'])\n"
    )
    assert done.returncode == 0, done.stderr
    assert "nms does not exist" in done.stdout or "not installed" in done.stdout


def calls(path: Path, name: str) -> list[ast.Call]:
    """Calls whose function is written `...name(`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name:
            found.append(node)
    return found


def test_only_one_module_interpolates() -> None:
    users = [dotted_name(path) for path in modules() if calls(path, "interpolate") or calls(path, "Upsample")]
    assert users == ["fastseg.layers.resize"]


def test_torch_load_always_refuses_pickled_code() -> None:
    for path in modules():
        for call in calls(path, "load"):
            if ast.unparse(call.func) != "torch.load":
                continue
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert given.get("weights_only") == "True", f"{path.relative_to(ROOT)}:{call.lineno}"


CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SCRIPTS = sorted((ROOT / "exp").glob("*.sh"))


def test_configs_and_scripts_exist_in_pairs() -> None:
    assert CONFIGS
    expected = [f"{config.parent.name}_{config.stem}.sh" for config in CONFIGS]
    assert [script.name for script in SCRIPTS] == sorted(expected)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_one_line_that_trains_its_config(script: Path) -> None:
    shebang, *content = [line for line in script.read_text().splitlines() if line.strip()]
    assert shebang.startswith("#!")
    assert len(content) == 1
    found = re.findall(r"configs/\S+\.yaml", content[0])
    assert len(found) == 1
    config = ROOT / found[0]
    assert config.is_file()
    assert script.stem == f"{config.parent.name}_{config.stem}"
    assert content[0].endswith('"$@"'), "arguments must reach the command"
    assert os.access(script, os.X_OK), "chmod +x"


def slow_where_large(config: Path) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if re.search("wrn38|r101", config.stem) else []  # the code of siblings, and half the time


@pytest.mark.parametrize(
    "config", [path for path in CONFIGS if slow_where_large(path)], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_a_large_config_builds_its_network_and_loss(config: Path) -> None:
    import torch

    from fastseg.config import load_config
    from fastseg.engine import build

    loaded = load_config(config)
    with torch.device("meta"):  # without memory
        model = build.build_model(loaded, 5)
    loss = build.build_loss(loaded, model, None)
    assert {f"aux.{name}" for name in model.aux_names} <= loss.weights.keys()


@pytest.mark.parametrize(
    "config",
    [pytest.param(path, id=f"{path.parent.name}-{path.stem}", marks=slow_where_large(path)) for path in CONFIGS],
)
def test_a_config_trains_on_random_images_without_its_data(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastseg.config import load_config
    from fastseg.engine.train import train

    monkeypatch.chdir(tmp_path)
    train(load_config(config, ["train.device=cpu"]), dry_run=True)
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"
