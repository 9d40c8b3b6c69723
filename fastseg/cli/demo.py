"""`fastseg demo`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fastseg.errors import ConfigError, MissingFileError

if TYPE_CHECKING:
    import numpy as np

    from fastseg.types import WeightsInfo

SUMMARY = "draw a street, label it with packaged weights, and write scene | prediction | truth; needs no network"
EXAMPLES = """\
  fastseg demo
  fastseg demo --seed 7 --out seven.png
  fastseg demo --scenes my_scenes --sizes 512x256 640x360      # only draw streets to try things on"""

SCENE_HEIGHT, SCENE_WIDTH = 384, 768
REPEATS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FILE", default="fastseg_demo.png", help="default: fastseg_demo.png, replaced")
    parser.add_argument("--seed", type=int, default=0, help="another street for every number (default: 0)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument(
        "--scenes", metavar="DIR", help="write street images, and nothing else, into DIR; existing ones are replaced"
    )
    parser.add_argument(
        "--sizes",
        metavar="WIDTHxHEIGHT",
        nargs="+",
        default=["512x256", "640x360", "333x517"],
        help="one scene each for --scenes (default: 512x256 640x360 333x517)",
    )


def run(args: argparse.Namespace) -> int:
    if args.seed < 0:
        raise ConfigError(f"--seed is {args.seed}; allowed: 0 and above")
    return _write_scenes(args) if args.scenes else _show(args)


def _write_scenes(args: argparse.Namespace) -> int:
    from pathlib import Path

    sizes = [_parse_size(text) for text in args.sizes]
    for index, (width, height) in enumerate(sizes):
        image, _ = _scene(args.seed + index, height, width)
        path = Path(args.scenes) / f"street_{width}x{height}.png"
        _write_png(path, image)
        print(f"wrote {path}")
    return 0


def _show(args: argparse.Namespace) -> int:
    import statistics
    import time
    from pathlib import Path

    import numpy as np

    from fastseg.output import palette_table
    from fastseg.predict import Predictor

    if Path(args.out).suffix.lower() != ".png":
        raise ConfigError(f"--out is {args.out!r}; the demo writes a .png file")
    info = _packaged_weights()
    predictor = Predictor(info.model, weights=info.name, device=args.device)
    image, truth = _scene(args.seed, SCENE_HEIGHT, SCENE_WIDTH)
    prediction = predictor(image)
    milliseconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        predictor(image)
        milliseconds.append(1000 * (time.perf_counter() - start))

    from fastseg.data.road_scenes import ROAD_SCENES

    blend = np.asarray(prediction.overlay(alpha=0.6, legend=False))
    gap = np.full((SCENE_HEIGHT, 8, 3), 255, np.uint8)
    _write_png(Path(args.out), np.hstack([image, gap, blend, gap, palette_table(ROAD_SCENES)[truth]]))
    print(f"{info.model}, weights {info.name!r}, on {predictor.device}")
    print(
        f"scene {SCENE_WIDTH}x{SCENE_HEIGHT}; image to labels in {statistics.median(milliseconds):.1f} ms "
        f"(median of {REPEATS})"
    )
    print(f"wrote {args.out}: scene | prediction | truth")
    if info.dataset.name != ROAD_SCENES.name:
        print(
            f"these weights know real streets ({info.dataset.name}, {info.dataset.num_classes} classes) and have never "
            "seen a drawn one; their colours differ from the truth's"
        )
    return 0


def _packaged_weights() -> WeightsInfo:
    """Weights trained on drawn streets where they are packaged, else those of CamVid."""
    from fastseg.weights import published_weights

    order = {"road_scenes": 0, "camvid": 1}
    found = sorted(published_weights(), key=lambda info: order.get(info.dataset.name, len(order)))
    if not found:
        raise MissingFileError("this copy of fastseg has no packaged weights; train some: make quickstart")
    return found[0]


def _scene(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (H,W,3) and truth uint8 (H,W) of the drawn street number `seed`."""
    from fastseg.data.road_scenes import render_scene

    return render_scene(seed, height, width)


def _parse_size(text: str) -> tuple[int, int]:
    width, times, height = text.lower().partition("x")
    if not (times and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ConfigError(f"--sizes was given {text!r}; expected WIDTHxHEIGHT in pixels, such as 640x360")
    return int(width), int(height)


def _write_png(path: object, image: np.ndarray) -> None:
    import io
    from pathlib import Path

    from PIL import Image

    from fastseg.atomic import write_atomically

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    write_atomically(Path(str(path)), buffer.getvalue())
