"""The sections of a configuration, their keys and their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from fastseg.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


@dataclass
class ModelConfig:
    """`num_classes` comes from the data set; `args` are the builder's other arguments."""

    name: str = "fast_scnn"
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class DataPart:
    """Another data set to train on, whose classes are those of the first; each epoch shows it `repeat` times."""

    name: str = ""
    root: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    split: str = "train"
    repeat: int = 1


@dataclass
class DataConfig:
    """`root` is the data set's folder; splits may be joined by '+'.

    An epoch shows the training split `repeat` times, and every part of `extra` as often as it says. `class_uniform` is
    the share of crops that are drawn to show a class chosen uniformly. `cache` keeps decoded images: 'memory' in each
    process (also true, the older spelling; false is 'none'), 'disk' in one file in `cache_dir` that all processes map
    (default: the user's cache folder).
    """

    name: str = "road_scenes"
    root: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    train_split: str = "train"
    val_split: str = "val"
    repeat: int = 1
    extra: list[DataPart] = field(default_factory=list)
    class_uniform: float = 0.0
    workers: int = 2
    cache: Literal["none", "memory", "disk"] = "none"
    cache_dir: str | None = None


@dataclass
class InputConfig:
    """What the network sees. `scale` enlarges the image before the network, in training and ever after."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channel_order: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1.0


@dataclass
class AugmentConfig:
    """`crop` is (height, width) of the network input; `scale` is a range relative to `input.scale`, drawn
    log-uniformly; `aspect` 0.1 stretches width against height by up to 10 %. Colour strengths are fractions. A crop in
    which one class has more than `cat_max_ratio` of the labelled pixels is drawn again, up to ten times in all."""

    crop: tuple[int, int] = (512, 1024)
    cat_max_ratio: float = 1.0
    scale: tuple[float, float] = (0.5, 2.0)
    aspect: float = 0.0
    rotate: float = 0.0
    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02
    blur: float = 0.0


@dataclass
class OptimConfig:
    """The head multipliers apply to every parameter outside the model's `backbone`: 10 has the rest learn ten times as
    fast as a backbone that starts from ImageNet's weights. `adam` adds the decay to gradients, `adamw` to weights."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 4e-5
    head_lr_multiplier: float = 1.0
    head_decay_multiplier: float = 1.0


@dataclass
class ScheduleConfig:
    """Length in `epochs`, or in `iterations` when that is set. `warmup` counts iterations. 'step' cuts the run into
    `steps` equal parts and multiplies the rate by `step_factor` from each to the next."""

    name: Literal["poly", "cosine", "step"] = "poly"
    epochs: float = 100.0
    iterations: int | None = None
    power: float = 0.9
    steps: int = 3
    step_factor: float = 0.5
    warmup: int = 0
    warmup_factor: float = 0.1
    final_factor: float = 0.0


@dataclass
class LossConfig:
    """`class_weights` from the training labels: 'enet' is 1/ln(1.02+p), 'espnet' 1/ln(1.1+p), 'median' is median(p)/p
    over images. `aux` has the weights of auxiliary outputs, by name; they share the main loss, or have the one that
    the network or `aux_losses` names, with the arguments in `aux_args`. Auxiliary losses compare with every
    `aux_stride`-th label. `terms` has the weights of further losses of the whole output, `term_args` their
    arguments."""

    name: str = "cross_entropy"
    args: dict[str, Any] = field(default_factory=dict)
    class_weights: Literal["none", "enet", "espnet", "median"] = "none"
    aux: dict[str, float] = field(default_factory=dict)
    aux_losses: dict[str, str] = field(default_factory=dict)
    aux_args: dict[str, dict[str, Any]] = field(default_factory=dict)
    aux_stride: int = 1
    terms: dict[str, float] = field(default_factory=dict)
    term_args: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class TrainConfig:
    """`total_batch` counts images per optimiser step over all processes and accumulation steps.

    `timeout` are the seconds after which processes that wait for another one give the job up.
    """

    total_batch: int = 8
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    ema_decay: float = 0.0
    clip_grad_norm: float = 0.0
    norm: Literal["bn", "sync", "gloo", "apex", "auto"] = "auto"
    device: str = "auto"
    seed: int = 0
    deterministic: bool = False
    eval_every: float = 10.0
    checkpoint_every: int = 500
    log_every: int = 20
    timeout: int = 600


@dataclass
class Config:
    """A whole run. `run_dir` receives checkpoints, logs and the resolved configuration; `source` is set on loading.

    `init_from` names weights to begin with (published weights of the network, or a weights file, checkpoint or run
    folder); where their classes are others, the layers that depend on the classes begin anew.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    input: InputConfig = field(default_factory=InputConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    init_from: str | None = None
    run_dir: str = "runs/unnamed"
    source: str = "command line"

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.input.mean, self.input.std, self.input.channel_order, self.input.scale)
