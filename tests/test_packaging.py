"""What is shipped, and whether the documents tell the truth about it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/log.md")
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_version_has_one_home() -> None:
    from fastseg import __version__

    assert 'version = { attr = "fastseg.version.__version__" }' in PYPROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", __version__)
    try:
        assert metadata.version("fastseg-zoo") == __version__
    except metadata.PackageNotFoundError:
        pytest.skip("fastseg-zoo is not installed here; the clone is used as it is")


def test_the_distribution_is_fastseg_zoo_and_its_command_exists() -> None:
    import fastseg.cli

    assert 'name = "fastseg-zoo"' in PYPROJECT
    assert 'fastseg = "fastseg.cli:main"' in PYPROJECT
    assert callable(fastseg.cli.main)


def test_nobody_is_told_to_install_the_foreign_distribution() -> None:
    """PyPI's `fastseg` is another project."""
    texts = [ROOT / name for name in DOCUMENTS] + [*(ROOT / "fastseg").rglob("*.py"), *(ROOT / "tools").glob("*.sh")]
    for path in texts:
        assert not re.search(r"pip3? install\s+(-\S+\s+)*['\"]?fastseg(?!-zoo)\b", path.read_text()), path


def test_apex_is_never_a_dependency() -> None:
    """PyPI's `apex` is a web toolkit."""
    assert not re.search(r'"apex\b', PYPROJECT.split("[tool.mypy]")[0])


def test_the_licence_is_the_whole_apache_2_0() -> None:
    text = " ".join((ROOT / "LICENSE").read_text().split())
    assert text.startswith("Apache License Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in text
    assert 'license = "Apache-2.0"' in PYPROJECT


def test_types_counts_and_weights_are_shipped() -> None:
    assert (ROOT / "fastseg/py.typed").is_file()
    assert (ROOT / "fastseg/models/facts.json").is_file()
    assert 'fastseg = ["py.typed", "models/facts.json", "weights/embedded/*.safetensors"]' in PYPROJECT


def test_packaged_weights_are_small_and_as_published() -> None:
    from fastseg.weights import zoo

    for table in zoo._PUBLISHED.values():
        for file, sha256 in table.values():
            data = (zoo.EMBEDDED / file).read_bytes()
            assert len(data) < 4e6
            assert hashlib.sha256(data).hexdigest() == sha256


def test_the_contributing_guides_code_runs(tmp_path: Path) -> None:
    """In a fresh interpreter: the examples register a model and a data set."""
    examples = blocks("CONTRIBUTING.md", "python")
    assert len(examples) == 2
    for name in ("train/a.png", "train_labels/a.png"):
        (tmp_path / name).parent.mkdir()
    check = (
        "import numpy as np, torch\n"
        "from PIL import Image\n"
        "Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save('train/a.png')\n"
        "Image.fromarray(np.array([[0, 1, 255]], np.uint8).repeat(4, 0).repeat(2, 1)).save('train_labels/a.png')\n"
        "from fastseg.models import create_model\n"
        "from fastseg.data import build_dataset\n"
        "assert create_model('tiny_net', num_classes=2)(torch.zeros(1, 3, 5, 9)).logits.shape == (1, 2, 2, 3)\n"
        "image, label = build_dataset('garden', 'train', root='.').load(0)\n"
        "assert image.shape == (4, 6, 3) and sorted(set(label.ravel().tolist())) == [0, 1, 255]\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*examples, check])],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_files_that_the_documents_name_exist() -> None:
    pattern = r"`((?:configs|exp|tools|tests|docs|fastseg)/[\w./-]+\.(?:yaml|sh|py|md))`"
    for document in DOCUMENTS:
        for name in re.findall(pattern, (ROOT / document).read_text()):
            if "tiny_net" not in name and "garden" not in name:  # the guide's examples
                assert (ROOT / name).is_file(), f"{document} names {name}"


def test_commands_in_the_readme_parse() -> None:
    """Every `fastseg ...` line of the README has a command and options that exist."""
    import shlex

    from fastseg.cli import COMMANDS, _command_parser, command_of

    lines = [line for block in blocks("README.md", "bash") for line in block.replace("\\\n", " ").splitlines()]
    commands = [command_of(shlex.split(line, comments=True)[1:]) for line in lines if line.startswith("fastseg ")]
    assert {name for name, _ in commands} == COMMANDS.keys()
    for name, arguments in commands:
        _, unknown = _command_parser(name).parse_known_intermixed_args(arguments)
        assert not unknown, f"fastseg {name} {unknown}"


def test_quickstart_scores_at_the_size_it_trains_at() -> None:
    from fastseg.config import load_config

    trained = load_config(ROOT / "configs/road_scenes/fast_scnn.yaml").data.args
    scored = re.findall(r"--data-args height=(\d+) width=(\d+)", (ROOT / "tools/quickstart.sh").read_text())
    assert scored == [(str(trained["height"]), str(trained["width"]))]


@pytest.mark.parametrize("script", ["tools/dist_train.sh", "tools/quickstart.sh", ".ci/run"])
def test_scripts_are_executable_and_stop_at_the_first_error(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text()


def test_the_launcher_works_from_any_folder_and_keeps_relative_arguments(tmp_path: Path) -> None:
    """A stand-in for the interpreter prints what it is given."""
    fake = tmp_path / "python"
    fake.write_text('#!/usr/bin/env bash\n[[ $1 == -c ]] && { echo 4; exit; }\necho "$OMP_NUM_THREADS" "$@"\n')
    fake.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    script = str(ROOT / "exp/road_scenes_fast_scnn.sh")

    def launch(nproc: str) -> str:
        done = subprocess.run(
            ["bash", script, "data.root=here"],
            cwd=tmp_path,
            env={**environment, "PYTHON": str(fake), "NPROC": nproc},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    config = f"{ROOT}/configs/road_scenes/fast_scnn.yaml"
    assert launch("1") == f"4 -m fastseg train {config} data.root=here"
    torchrun = "-m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 0"
    assert launch("2") == f"2 {torchrun} -m fastseg train {config} data.root=here"


def test_continuous_integration_runs_make_test() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert "exec make test" in lines
    makefile = (ROOT / "Makefile").read_text()
    command = r'-m pytest -n \$\(WORKERS\) --dist loadfile -m "not slow"'
    assert re.search(rf"^test: .*\n\t\$\(python\) {command}$", makefile, re.MULTILINE)
