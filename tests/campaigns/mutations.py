"""Files that nobody wrote on purpose: sound ones with bits flipped, parts cut out, doubled, exchanged or appended."""

from __future__ import annotations

import io
import random
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastseg.config import Config, dump_config, load_config
from fastseg.data.listing import read_list
from fastseg.data.readers import read_colour_label, read_ids, read_image, read_label
from fastseg.engine.checkpoint import load_checkpoint, save_checkpoint
from fastseg.errors import FastsegError
from fastseg.types import DatasetInfo, Preprocessing, WeightsInfo
from fastseg.weights.files import info_to_dict, read_weights, save_weights

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
HANG_SECONDS = 2.0


@dataclass
class Findings:
    """What became of some files. `slow` and `wrong` hold the seeds by which a file is made again."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    peak_mb: float = 0.0

    def add(self, other: Findings) -> None:
        self.outcomes += other.outcomes
        self.wrong += other.wrong
        self.slow += other.slow
        self.peak_mb = max(self.peak_mb, other.peak_mb)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common())
        return f"{counts}; {len(self.wrong)} other exceptions, {len(self.slow)} hangs, peak {self.peak_mb:.0f} MB"


def mutated(data: bytes, generator: random.Random) -> bytes:
    """One to eight changes, more often near the beginning, where headers are."""
    content = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 3, 8))):
        size = len(content)
        if not size:
            break
        place = generator.randrange(size) if generator.random() < 0.5 else generator.randrange(min(size, 128))
        length = generator.choice((1, 2, 4, 16, 256))
        kind = generator.randrange(7)
        if kind == 0:
            content[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            content[place : place + length] = generator.choice((b"\0", b"\xff", b"\x7f")) * length
        elif kind == 2:
            del content[place:]
        elif kind == 3:
            del content[place : place + length]
        elif kind == 4:
            content[place:place] = content[place : place + length]
        elif kind == 5:
            content += generator.randbytes(length)
        else:
            content[place : place + length] = generator.randbytes(length)
    return bytes(content)


def images() -> list[bytes]:
    """A small image of every mode in every format that has it, with and without turns and frames."""
    found = []
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    for mode in MODES:
        image = Image.fromarray(pixels)
        image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
        for name in FORMATS:
            exif = Image.Exif()
            exif[0x0112] = 6
            for options in ({}, {"exif": exif}, {"save_all": True, "append_images": [image]}):
                buffer = io.BytesIO()
                try:
                    image.save(buffer, name, **options)
                except (OSError, ValueError, KeyError, AttributeError, TypeError):
                    continue  # the format has no such mode
                found.append(buffer.getvalue())
    return list(dict.fromkeys(found))


def lists() -> list[bytes]:
    return [
        b"leftImg8bit/a.png gtFine/a.png\nleftImg8bit/b.png\tgtFine/b.png\n",
        "\ufeff/train/a b.png /trainannot/ä.png\r\n\r\n../x.png ../y.png\r\n".encode(),
        b"a\nb\nc\n",
        b"'quoted name.png' \"other.png\"\n# no comment\n",
    ]


def configurations() -> list[bytes]:
    other = Config(run_dir="runs/x", init_from="camvid")
    other.data.name, other.augment.crop, other.loss.args = "folder", (33, 65), {"labels": {0: "a", 7: "b"}}
    return [dump_config(Config()).encode(), dump_config(other).encode(), b"model: {name: fast_scnn, args: {aux: true}}"]


def info() -> WeightsInfo:
    dataset = DatasetInfo("things", ("a", "b"), ((0, 0, 0), (255, 255, 255)))
    return WeightsInfo("fast_scnn", "seed", "seed.safetensors", "", dataset, Preprocessing())


def weights() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        state = {"a.weight": torch.arange(12.0).view(3, 4), "b": torch.tensor(3)}
        return [save_weights(Path(folder) / "w.safetensors", state, info()).read_bytes()]


def checkpoints() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        state = {"a.weight": torch.arange(12.0).view(3, 4)}
        table = {"format_version": 1, "info": info_to_dict(info()), "model": state, "ema": None, "progress": {}}
        return [save_checkpoint(Path(folder), 1, table).read_bytes()]


def through_file(read: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
    """`read` of a file that holds the bytes."""
    folder = tempfile.TemporaryDirectory()

    def of_bytes(data: bytes, folder: tempfile.TemporaryDirectory[str] = folder) -> object:
        path = Path(folder.name) / name
        path.write_bytes(data)
        return read(path)

    return of_bytes


def forged_checkpoint(path: Path) -> object:
    """Read with a manifest that fits, as somebody would who damages on purpose."""
    from fastseg.weights.files import file_sha256

    manifest = f'{{"sha256": "{file_sha256(path)}", "bytes": {path.stat().st_size}}}'
    path.with_suffix(".json").write_text(manifest)
    load_checkpoint(path)
    return read_weights(path)


# what is read, and the sound files to begin with
TARGETS: dict[str, tuple[Callable[[], list[bytes]], Callable[[], list[Callable[[bytes], object]]]]] = {
    "images": (images, lambda: [read_image, read_label, read_ids, read_colour_label]),
    "lists": (lists, lambda: [through_file(read_list, "train.txt")]),
    "configurations": (configurations, lambda: [through_file(load_config, "config.yaml")]),
    "weights": (weights, lambda: [through_file(read_weights, "w.safetensors")]),
    "checkpoints": (checkpoints, lambda: [through_file(forged_checkpoint, "step_00000001.pt")]),
}


def fuzz(target: str, first: int, last: int) -> Findings:
    """Read files number `first` to `last - 1` of a target in every way that there is."""
    warnings.simplefilter("ignore")
    make, readers = TARGETS[target]
    sound, ways = make(), readers()
    findings = Findings()
    for seed in range(first, last):
        generator = random.Random(seed)
        data = mutated(generator.choice(sound), generator)
        for way in ways:
            began = time.monotonic()
            try:
                way(data)
                findings.outcomes["read"] += 1
            except FastsegError:
                findings.outcomes["refused"] += 1
            except Exception as error:
                findings.outcomes["wrong"] += 1
                findings.wrong.append(f"{target} {seed}: {type(error).__name__}: {str(error)[:200]}")
            if time.monotonic() - began > HANG_SECONDS:
                findings.slow.append(f"{target} {seed}")
    findings.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return findings
