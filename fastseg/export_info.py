"""What an exported file says of itself: one JSON text, written and read here, whatever the file's format.

ONNX's `metadata_props`, OpenVINO's `rt_info` and the extra files of a `.pt2` hold it under METADATA_KEY.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fastseg.errors import CheckpointError, printable
from fastseg.output import distinct_palette
from fastseg.types import DatasetInfo, WeightsInfo
from fastseg.version import __version__
from fastseg.weights.files import info_from_dict, info_to_dict

METADATA_KEY = "fastseg"
METADATA_FILE = "fastseg.json"  # in a .pt2
FORMAT_VERSION = 1
MOST_CLASSES = 256


@dataclass(frozen=True)
class ExportInfo:
    """What an exported file says of itself.

    `weights_info.sha256` is that of the weights it was made of. Each side of an image needs `minimum_side` pixels.
    `precision` is 'fp32', 'fp16' (weights are stored so) or 'int8'.
    """

    weights_info: WeightsInfo
    minimum_side: int = 1
    precision: str = "fp32"
    fastseg_version: str = __version__

    def text(self) -> str:
        """The JSON that stands in the file."""
        return json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "fastseg_version": self.fastseg_version,
                "precision": self.precision,
                "minimum_side": self.minimum_side,
                "weights_sha256": self.weights_info.sha256,
                "info": info_to_dict(self.weights_info),
            }
        )

    @classmethod
    def from_text(cls, text: str, path: Path) -> ExportInfo:
        """The inverse of `text`. Raises CheckpointError for other text, naming the file `path`."""
        try:
            table = json.loads(text)
            version = int(table["format_version"])
            if version > FORMAT_VERSION:
                raise CheckpointError(
                    f"{printable(path)} has format version {version}, newer than {FORMAT_VERSION}; upgrade fastseg"
                )
            info = info_from_dict(table["info"], file=str(path), sha256=table["weights_sha256"])
            return cls(info, int(table["minimum_side"]), str(table["precision"]), str(table["fastseg_version"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{printable(path)}: its fastseg metadata is damaged ({error!r}); export it again"
            ) from None


def numbered_classes(num_classes: int) -> DatasetInfo:
    """Names and colours for classes of which only the number is known."""
    names = tuple(f"class_{index}" for index in range(num_classes))
    return DatasetInfo("unnamed", names, distinct_palette(num_classes))


def unknown_info(path: Path) -> ExportInfo:
    """For a file that says nothing of itself: as many numbered classes as a label map can hold."""
    return ExportInfo(WeightsInfo(path.stem, "", str(path), "", numbered_classes(MOST_CLASSES)), fastseg_version="")
