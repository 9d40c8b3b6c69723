"""Small networks and pictures with known answers, for several test files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fastseg.data.dataset import SegDataset
from fastseg.types import DatasetInfo, Preprocessing, SegModel, SegOutput, WeightsInfo

RANDOM = np.random.default_rng(0)
COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], np.uint8)
INFO = DatasetInfo("colours", ("red", "green", "blue", "yellow"), tuple(map(tuple, COLORS.tolist())))


class StridedModel(SegModel):
    """A real network in small: stride 4, batch norm, align_corners as given."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_classes = num_classes
        self.aux_heads = nn.ModuleDict()
        self.layers = nn.Sequential(nn.Conv2d(3, num_classes, 3, stride=4, padding=1), nn.BatchNorm2d(num_classes))

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.layers(images), {})


class NearestColor(SegModel):
    """Class = the nearest of COLORS, pixel by pixel: its label map is the image itself, so misalignment shows."""

    def __init__(self, preprocessing: Preprocessing | None = None) -> None:
        super().__init__()
        self.num_classes = len(COLORS)
        self.aux_heads = nn.ModuleDict()
        self.weights_info = WeightsInfo("nearest", "toy", "", "", INFO, preprocessing or Preprocessing())
        self.scale = nn.Parameter(torch.tensor(8.0))

    def forward(self, images: Tensor) -> SegOutput:
        colors = torch.tensor(COLORS / 255, dtype=torch.float32).view(1, -1, 3, 1, 1)
        return SegOutput(-self.scale * (self._rgb(images)[:, None] - colors).abs().sum(dim=2), {})

    def _rgb(self, images: Tensor) -> Tensor:
        """The image before it was normalised, 0..1."""
        mean = torch.tensor(self.preprocessing.mean).view(1, 3, 1, 1)
        std = torch.tensor(self.preprocessing.std).view(1, 3, 1, 1)
        rgb = images * std + mean
        return rgb.flip(1) if self.preprocessing.channel_order == "bgr" else rgb


class RedEdges(NearestColor):
    """Finds edges where the image is red, as likely as it is red."""

    def predict_edges(self, images: Tensor) -> Tensor:
        return self._rgb(images)[:, :1]


class ColorEdges(RedEdges):
    """Finds edges of three classes: where the image is red, green and blue."""

    def predict_edges(self, images: Tensor) -> Tensor:
        return self._rgb(images)


def encoded(image: Image.Image, file_format: str = "PNG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, file_format, exif=exif)
    return buffer.getvalue()


def save_image(path: Path, classes: np.ndarray | None = None) -> Path:
    """An image file of exact class colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = RANDOM.integers(0, 4, (6, 9)) if classes is None else classes
    path.write_bytes(encoded(Image.fromarray(COLORS[labels]), "PNG"))
    return path


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


class Numbered(SegDataset):
    """Image and label of sample i are filled with i."""

    info = DatasetInfo("numbered", ("a", "b"), ((0, 0, 0), (1, 1, 1)))

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((12, 16, 3), index, np.uint8), np.full((12, 16), index % 2, np.uint8)

    def sample_name(self, index: int) -> str:
        return f"sample{index}"
