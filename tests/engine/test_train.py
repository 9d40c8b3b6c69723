"""A run from its header to its weights: what it says and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from fastseg.config import Config, load_config
from fastseg.engine import resume
from fastseg.engine import train as engine
from fastseg.engine.checkpoint import load_checkpoint
from fastseg.engine.step import StepResult
from fastseg.engine.train import TrainResult, train
from fastseg.errors import CheckpointError, ConfigError, DistributedError, FastsegError, MissingFileError
from fastseg.weights.files import read_weights
from workers import TwoProcesses, column, lighten, short_config

pytestmark = pytest.mark.usefixtures("light_runs")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, str]:
    """A finished run of 4 steps and what it printed."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        lighten(patched)
        patched.setattr(engine.Record, "say", lambda _, text: lines.append(text))
        result = train(short_config(tmp_path_factory.mktemp("finished") / "run"))
    return result, "\n".join(lines)


def test_the_header_says_how_the_batch_is_made(finished: tuple[TrainResult, str]) -> None:
    header = finished[1].splitlines()[:3]
    assert "model fast_scnn: 1,192,974 parameters, 10 classes (road_scenes), norm bn, fp32 on cpu" in header[0]
    assert header[1] == (
        "total batch 2 = 1 processes x 2 images x 1 accumulation steps; 4 images, 2.0 iterations per epoch"
    )
    assert header[2].startswith("4 iterations (2.0 epochs), evaluation every 200 on 4 images of val; run folder ")


def test_a_run_leaves_its_configuration_and_environment(finished: tuple[TrainResult, str]) -> None:
    run_dir = finished[0].run_dir
    loaded, given = load_config(run_dir / "config.yaml"), short_config(run_dir)
    loaded.source = given.source
    assert loaded == given
    environment = json.loads((run_dir / "environment.json").read_text())
    assert environment["command"] == sys.argv
    assert environment["torch"]


def test_a_run_leaves_weights_that_say_what_they_are(finished: tuple[TrainResult, str]) -> None:
    result = finished[0]
    assert result.iterations == 4
    assert result.stopped == ""
    assert result.weights == result.run_dir / "last.safetensors"
    assert result.scores is not None
    weights = read_weights(result.weights)
    assert weights.info.model == "fast_scnn"
    assert weights.info.model_args == {"aux": True, "dropout": 0.1}
    assert weights.info.metric_measured == f"{100 * result.scores.miou:.2f} mIoU on road_scenes val"
    average = load_checkpoint(result.run_dir / "checkpoints/step_00000004.pt")["ema"]
    assert all(torch.equal(value, average[name]) for name, value in weights.state.items())


def test_losses_and_rates_are_in_the_table(finished: tuple[TrainResult, str]) -> None:
    run_dir = finished[0].run_dir
    assert column(run_dir, "iteration") == [1, 2, 3, 4]
    total = [main + 0.4 * (a + b) for main, a, b in zip(
        column(run_dir, "main"), column(run_dir, "aux.detail"), column(run_dir, "aux.context"), strict=True
    )]  # fmt: skip
    assert column(run_dir, "loss") == pytest.approx(total, rel=1e-6)
    # warm-up over 5 steps from a tenth, times poly decay over 4
    expected = [0.02 * (0.1 + 0.9 * i / 5) * (1 - i / 4) ** 0.9 for i in range(4)]
    assert column(run_dir, "lr") == pytest.approx(expected)
    assert len(column(run_dir, "miou", "eval.csv")) == 1
    assert "nan" not in (run_dir / "train.csv").read_text()


def test_an_earlier_run_is_not_overwritten(finished: tuple[TrainResult, str]) -> None:
    before = (finished[0].run_dir / "last.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"holds checkpoints of an earlier run; go on with --resume auto, or choose"):
        train(short_config(finished[0].run_dir))
    assert (finished[0].run_dir / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (lambda c: setattr(c.optim, "lr", 0.5), r"optim\.lr \(then 0\.02, now 0\.5\)"),
        (lambda c: setattr(c.augment, "crop", (48, 64)), r"augment\.crop \(then .32, 64., now .48, 64.\)"),
        (lambda c: c.model.args.update(dropout=0.3), r"model\.args\.dropout \(then 0\.1, now 0\.3\)"),
        (
            lambda c: vars(c.train).update(seed=3) or vars(c.schedule).update(warmup=1),
            r"schedule\.warmup \(then 5, now 1\), train\.seed \(then 0, now 3\)",
        ),
    ],
)
def test_a_changed_configuration_is_refused_by_key(
    finished: tuple[TrainResult, str], change: Callable[[Config], Any], keys: str
) -> None:
    config = short_config(finished[0].run_dir)
    change(config)
    with pytest.raises(ConfigError, match=rf"is of a run with other values: {keys}; set them back"):
        train(config, resume="auto")


def test_another_number_of_processes_is_refused(two_processes: TwoProcesses, finished: tuple[TrainResult, str]) -> None:
    for message in two_processes(complaint, short_config(finished[0].run_dir), "auto"):
        assert "world_size (then 1, now 2); set them back" in message


def complaint(config: Config, how: str = "no") -> str:
    try:
        train(config, resume=how)
    except FastsegError as error:
        return str(error)
    finally:
        if dist.is_initialized():
            dist.barrier()
    return ""


def complaint_about_data(config: Config) -> str:
    """Of a process that finds one image more than the first."""
    config.data.args["count"] += dist.get_rank()
    return complaint(config)


def test_processes_that_find_other_files_are_refused(tmp_path: Path, two_processes: TwoProcesses) -> None:
    for message in two_processes(complaint_about_data, short_config(tmp_path / "run")):
        assert "data.train_split: rank 1 found 5 samples and rank 0 4" in message
        assert "all machines need the same files" in message


def test_a_batch_that_cannot_be_split_is_refused(tmp_path: Path, two_processes: TwoProcesses) -> None:
    config = short_config(tmp_path / "run")
    config.train.total_batch = 5
    config.train.accumulate = 2
    for message in two_processes(complaint, config):
        assert "train.total_batch=5 cannot be split over 2 processes x 2 accumulation steps" in message
        assert "use train.total_batch=4" in message
    assert not (tmp_path / "run").exists()


def test_one_image_on_one_process_is_refused_before_the_first_step(tmp_path: Path) -> None:
    config = short_config(tmp_path / "run")
    config.train.total_batch = 1
    with pytest.raises(DistributedError, match=r"tiny\.yaml: model 'fast_scnn' pools the whole image.*total_batch=2"):
        train(config)
    assert not (tmp_path / "run").exists()


def train_briefly(config: Config) -> list[float]:
    train(config)
    if dist.is_initialized():
        dist.barrier()
    return column(Path(config.run_dir), "loss")


def test_one_image_on_each_of_two_processes_trains(tmp_path: Path, two_processes: TwoProcesses) -> None:
    config = short_config(tmp_path / "run", steps=2)
    losses, _ = two_processes(train_briefly, config)
    assert len(losses) == 2
    assert all(0 < loss < 100 for loss in losses)


def evaluated_statistics(config: Config) -> dict[str, Tensor]:
    """The running statistics with which this process evaluates."""
    found: dict[str, Tensor] = {}
    original = engine.evaluate

    def evaluate(predictor: Any, *args: Any, **kwargs: Any) -> Any:
        found.update((name, buffer.clone()) for name, buffer in predictor.model.named_buffers())
        return original(predictor, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "evaluate", evaluate)
        train(config)
    return found


def test_all_processes_evaluate_the_same_network(tmp_path: Path, two_processes: TwoProcesses) -> None:
    config = short_config(tmp_path / "run", steps=2)
    config.train.norm = "bn"  # each process has its own statistics, and the first one's are saved
    config.train.total_batch = 4
    first, second = two_processes(evaluated_statistics, config)
    saved = read_weights(tmp_path / "run/last.safetensors").state
    assert any("running_mean" in name for name in first)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        assert torch.equal(value, saved[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: setattr(c.model, "name", "fast_scn"), r"tiny\.yaml: model\.name: .*did you mean 'fast_scnn'"),
        (lambda c: c.model.args.update(dropot=0.5), r"tiny\.yaml: model\.args: .*'dropot'; did you mean 'dropout'"),
        (lambda c: c.model.args.update(num_classes=3), r"tiny\.yaml: model\.args\.num_classes comes from the data set"),
        (lambda c: c.model.args.update(pyramid_fuse_kernel=5), r"tiny\.yaml: model\.args: pyramid_fuse_kernel is 5"),
        (lambda c: setattr(c.data, "name", "road_scene"), r"tiny\.yaml: data: .*did you mean 'road_scenes'"),
        (lambda c: c.data.args.update(heigth=5), r"tiny\.yaml: data: .*'heigth'; did you mean 'height'"),
        (lambda c: setattr(c.loss, "name", "ohem_cross_entropi"), r"tiny\.yaml: loss: .*'ohem_cross_entropy'"),
        (lambda c: c.loss.args.update(treshold=0.5), r"tiny\.yaml: loss: .*no argument 'treshold'"),
        (lambda c: c.loss.args.update(class_weights=[1.0, 2.0]), r"tiny\.yaml: loss\.args\.class_weights has 2 values"),
        (lambda c: c.loss.aux.update(detale=0.4), r"tiny\.yaml: loss\.aux\.detale: .*did you mean 'detail'"),
        (
            lambda c: c.loss.aux_losses.update(detale="class_boundary"),
            r"tiny\.yaml: loss\.aux_losses\.detale: the model has no such .*did you mean 'detail'",
        ),
        (
            lambda c: c.loss.aux_losses.update(detail="class_boundry"),
            r"tiny\.yaml: loss\.aux_losses\.detail: unknown loss 'class_boundry'; did you mean 'class_boundary'",
        ),
        (lambda c: c.loss.aux.pop("context"), r"tiny\.yaml: .*without a weight: context; set loss\.aux\.context=0\.4"),
    ],
)
def test_wrong_names_are_errors_with_file_key_and_spelling(
    tmp_path: Path, change: Callable[[Config], Any], message: str
) -> None:
    config = short_config(tmp_path / "run")
    change(config)
    with pytest.raises(ConfigError, match=message):
        train(config)
    assert not (tmp_path / "run").exists()


def test_class_weights_given_twice_are_refused(tmp_path: Path) -> None:
    config = short_config(tmp_path / "run")
    config.loss.class_weights = "enet"
    config.loss.args["class_weights"] = [1.0] * 10
    with pytest.raises(ConfigError, match=r"loss\.args\.class_weights and loss\.class_weights=enet are both given"):
        train(config)


def test_a_file_where_the_run_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(CheckpointError, match=r"cannot write .*run.*choose another run_dir"):
        train(short_config(tmp_path / "run"))


def test_two_runs_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "LOCK_SECONDS", 0.0)
    with (
        resume.locked(tmp_path),
        pytest.raises(ConfigError, match=r"is in use by process \d+ on .*; wait for it, stop"),
    ):
        train(short_config(tmp_path))
    with resume.locked(tmp_path):
        pass


def test_who_waits_for_a_folder_says_so_and_can_be_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped = iter([False, False, True])
    with resume.locked(tmp_path), pytest.raises(ConfigError, match="is in use by process"):
        resume.locked(tmp_path, lambda: next(stopped)).__enter__()
    said = capsys.readouterr().out
    assert said.count("in use by process") == 1
    assert "waiting 20 s for it to end" in said


def test_checkpoints_of_another_folder_start_a_new_one(finished: tuple[TrainResult, str], tmp_path: Path) -> None:
    path = finished[0].run_dir / "checkpoints/step_00000004.pt"
    result = train(short_config(tmp_path / "new"), resume=str(path))
    assert result.iterations == 4
    assert (tmp_path / "new/config.yaml").exists()
    assert (tmp_path / "new/checkpoints/step_00000004.pt").exists()


def test_resuming_without_a_checkpoint_begins(tmp_path: Path) -> None:
    assert train(short_config(tmp_path / "run", steps=1), resume="auto").iterations == 1


@pytest.mark.parametrize("channels_last", [True, False])
def test_bfloat16_trains_on_the_cpu(tmp_path: Path, channels_last: bool) -> None:
    config = short_config(tmp_path / "run", steps=3)
    config.train.precision = "bf16"
    config.train.channels_last = channels_last
    assert train(config).iterations == 3
    exact = short_config(tmp_path / "exact", steps=3)
    train(exact)
    losses = column(tmp_path / "run", "loss"), column(tmp_path / "exact", "loss")
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_accumulation_takes_the_same_images_per_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Tensor]] = []
    original = engine.backward

    def backward(*args: Any, **kwargs: Any) -> StepResult:
        seen.append([images for images, _ in args[2]])
        return original(*args, **kwargs)

    monkeypatch.setattr(engine, "backward", backward)
    for accumulate in (1, 2):
        config = short_config(tmp_path / str(accumulate), steps=2)
        config.train.total_batch = 4
        config.train.accumulate = accumulate
        train(config)
    assert [len(parts) for parts in seen] == [1, 1, 2, 2]
    for whole, parts in zip(seen[:2], seen[2:], strict=True):
        assert torch.equal(whole[0], torch.cat(parts))


def test_the_head_learns_at_its_own_rate(tmp_path: Path) -> None:
    moved = []
    for multiplier in (1.0, 0.0):
        config = short_config(tmp_path / str(multiplier), steps=1)
        config.model.name, config.model.args = "encoder_decoder", {"backbone": "xception39"}
        config.loss.aux = {}
        config.optim.head_lr_multiplier = multiplier
        config.train.ema_decay = 0.0
        moved.append(read_weights(train(config).weights or "").state)
    differing = {name for name, value in moved[0].items() if not torch.equal(value, moved[1][name])}
    assert "head.classifier.weight" in differing
    assert all(name.startswith("head.") for name in differing)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_head_multiplier_is_refused_where_there_is_no_backbone(tmp_path: Path, dry_run: bool) -> None:
    config = short_config(tmp_path / "run")
    config.optim.head_lr_multiplier = 10.0
    with pytest.raises(
        ConfigError, match=r"tiny\.yaml: optim\.head_lr_multiplier is 10\.0, .* FastSCNN has no part called"
    ):
        train(config, dry_run=dry_run)


def test_tensorboard_curves_are_written_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    module: Any = ModuleType("torch.utils.tensorboard")

    class SummaryWriter:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def add_scalar(self, name: str, *_: Any) -> None:
            names.append(name)

        def close(self) -> None:
            names.append("closed")

    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train(short_config(tmp_path / "run", steps=1))
    assert {"train/loss", "train/aux.detail", "train/lr", "eval/miou", "eval/iou/road"} < set(names)
    assert names[-1] == "closed"


@pytest.mark.parametrize("deterministic", [False, True])
def test_determinism_is_asked_of_torch(tmp_path: Path, deterministic: bool) -> None:
    config = short_config(tmp_path / "run", steps=1)
    config.train.deterministic = deterministic
    asked = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine.Record, "close", lambda _: asked.append(torch.are_deterministic_algorithms_enabled()))
        train(config)
    torch.use_deterministic_algorithms(False)
    assert asked == [deterministic]


def test_a_folder_of_checkpoints_that_is_a_file_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").write_text("mine")
    with pytest.raises(CheckpointError, match=r"run/checkpoints is no folder .*File exists.*move it, or"):
        train(short_config(tmp_path / "run"))
    assert (tmp_path / "run/checkpoints").read_text() == "mine"
    assert not (tmp_path / "run/train.csv").exists()


@pytest.mark.parametrize("place", ["", "checkpoints"])
def test_a_folder_is_resumed_from_its_newest_checkpoint(
    finished: tuple[TrainResult, str], tmp_path: Path, place: str
) -> None:
    shutil.copytree(finished[0].run_dir, tmp_path / "old")
    result = train(short_config(tmp_path / "new"), resume=str(tmp_path / "old" / place))
    assert (result.iterations, result.stopped) == (4, "")


@pytest.mark.parametrize(
    ("resume_from", "message"),
    [
        ("empty", r"--resume .*empty: the folder holds no checkpoints"),
        ("atuo", r"checkpoint .*atuo does not exist; allowed: auto, no, or the path of a step_\*\.pt"),
        (
            "best.safetensors",
            r"best\.safetensors has no manifest best\.json beside it.*use init_from=.*best\.safetensors",
        ),
    ],
)
def test_what_is_no_checkpoint_is_not_resumed_from(tmp_path: Path, resume_from: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "best.safetensors").write_bytes(b"weights")
    with pytest.raises((CheckpointError, MissingFileError), match=message):
        train(short_config(tmp_path / "run"), resume=str(tmp_path / resume_from))


def test_a_folder_that_nobody_described_is_sent_to_inspect(tmp_path: Path) -> None:
    config = short_config(tmp_path / "run")
    config.data.name, config.data.args, config.data.root = "folder", {}, "photos"
    message = r"tiny\.yaml: data: data set 'folder': missing .*'splits'; it takes root, .*`fastseg data inspect photos`"
    with pytest.raises(ConfigError, match=message):
        train(config)


def test_a_run_that_goes_on_from_before_its_newest_checkpoint_sets_that_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = short_config(tmp_path / "run")
    config.train.checkpoint_every = 1
    train(config)
    folder = tmp_path / "run/checkpoints"
    train(config, resume=str(folder / "step_00000003.pt"))
    assert "of another branch, set aside: " in capsys.readouterr().out
    names = [path.name for path in sorted(folder.glob("*.pt"))]
    assert names == ["set_aside_step_00000004.pt", "step_00000003.pt", "step_00000004.pt"]
