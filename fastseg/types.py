"""The vocabulary: what every part of fastseg may expect of every other.

N batch, C channels, K classes, H W pixels of the image, h w pixels of a map at some stride.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor, nn

from fastseg.layers.resize import resize

if TYPE_CHECKING:
    from fastseg.deploy import DeployedModel

IGNORE_INDEX = 255
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FeatureInfo:
    """One feature map of a backbone: its channels, and its stride in pixels of the image."""

    channels: int
    stride: int


class SegOutput(NamedTuple):
    """What a network returns in both modes.

    `logits` (N,K,h,w) stand at the network's own output stride. `aux` maps names to (N,C,h,w) logits: exactly the
    model's `aux_names` in training, empty in eval. C is K, unless the loss of that output says otherwise.
    """

    logits: Tensor
    aux: dict[str, Tensor]


class Backbone(nn.Module, ABC):
    """A feature extractor. `feature_info` describes the maps that `forward` returns, finest first."""

    feature_info: tuple[FeatureInfo, ...]

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N,C,H,W) -> maps; map i has `ceil(H/stride) x ceil(W/stride)` pixels."""


class Head(nn.Module, ABC):
    """Features -> logits at the head's own stride. A head never resizes to the image."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> logits (N,K,h,w)."""


class SegModel(nn.Module, ABC):
    """A whole network: normalised images (N,C,H,W) of any H, W >= 1 -> SegOutput.

    Auxiliary heads live in `aux_heads`, under their names, and run in training only. What one learns is the main loss,
    or the loss that `aux_losses` names for it.
    """

    num_classes: int
    aux_heads: nn.ModuleDict
    aux_losses: Mapping[str, str] = MappingProxyType({})
    align_corners: bool = False
    weights_info: WeightsInfo | None = None  # set by whoever loads weights: classes, preprocessing, licence

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary outputs in training, as configs and logs spell them."""
        return tuple(self.aux_heads.keys())

    @property
    def preprocessing(self) -> Preprocessing:
        """What the images that the network takes have been through."""
        return self.weights_info.preprocessing if self.weights_info else Preprocessing()

    @abstractmethod
    def forward(self, images: Tensor) -> SegOutput:
        """Normalised images (N,C,H,W) -> logits at the network's stride, and auxiliary logits in training."""

    def predict_logits(self, images: Tensor) -> Tensor:
        """Normalised images (N,C,H,W) -> logits (N,K,H,W), resized bilinearly.

        For losses and research; where only labels are wanted, `ops.upsample_argmax` never builds this map.
        """
        return resize(self(images).logits, like=images, align_corners=self.align_corners)

    def deploy(self, *, precision: str = "fp32") -> DeployedModel:
        """A copy for inference, on uint8 images; see `fastseg.deploy.deploy`."""
        from fastseg.deploy import deploy

        return deploy(self, precision=precision)


@dataclass(frozen=True)
class Preprocessing:
    """From a uint8 RGB image to what the network was trained on. Travels with every checkpoint and weights file.

    `mean` and `std` are in units of 0..1 and in the order of `channel_order` ('rgb' or 'bgr'). `input_scale`
    enlarges (> 1) or shrinks the image before the network; labels always come back at the image's own size.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channel_order: str = "rgb"
    input_scale: float = 1.0


def plain_name(name: str) -> str:
    """A class's name without case, spaces and punctuation: 'Sign_Symbol' and 'sign symbol' are one class."""
    return "".join(character for character in name.casefold() if character.isalnum())


def is_placeholder(name: str) -> bool:
    """Whether a class is only numbered, as in 'class_3': such a name is no sign that two classes mean the same."""
    plain = plain_name(name)
    return plain.startswith("class") and plain[len("class") :].isdecimal()


@dataclass(frozen=True)
class DatasetInfo:
    """The classes of a data set. `palette[i]` is the RGB colour of class i, `official_ids[i]` its id in raw files.

    `categories[i]` is the group that class i belongs to, and `instance_classes` are the names of those whose objects
    are told apart in instance maps; both empty where the data set's own scores know neither.
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    official_ids: tuple[int, ...] = ()
    ignore_index: int = IGNORE_INDEX
    categories: tuple[str, ...] = ()
    instance_classes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class DataFile(Protocol):
    """A file that can be read whole: a Path, or a member of an archive. `str(file)` says where it is."""

    @property
    def name(self) -> str:
        """Its last component."""
        ...

    def read_bytes(self) -> bytes:
        """Its content. Raises OSError."""
        ...


@dataclass(frozen=True)
class Sample:
    """One labelled image, as an adapter found it; `instances` is the map of its instance ids, where there is one."""

    image: DataFile
    label: DataFile
    instances: DataFile | None = None


@dataclass(frozen=True)
class WeightsInfo:
    """Published weights: where they are, what they expect, what they know, what they reach and under which terms."""

    model: str
    name: str
    file: str
    sha256: str
    dataset: DatasetInfo
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    model_args: dict[str, object] = field(default_factory=dict)
    metric_published: str = ""
    metric_measured: str = ""
    licence: str = ""
