"""Export every network and compare the files with it: `python tools/export_all.py --write docs/results/export.md`.

Networks are untrained, with 19 classes; their batch norms have seen two drawn streets, so that logits vary as trained
ones do. The comparison is that of `fastseg export`: five sizes, odd ones and a batch of two among them.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from fastseg.atomic import write_atomically
from fastseg.data.road_scenes import render_scene
from fastseg.engine.export import OPSET, export_model
from fastseg.engine.export_check import SIZES
from fastseg.errors import FastsegError
from fastseg.exported import FORMATS
from fastseg.models import create_model, list_models
from fastseg.models.backbones.resnet import BasicBlock, Bottleneck
from fastseg.models.backbones.xception import XceptionBlock
from fastseg.ops import normalize_images
from fastseg.types import SegModel

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino")
HEADER = "| network | format | MB | smallest side | labels equal | max \\|d logit\\| | largest \\|logit\\| | seconds |"


def network(name: str) -> SegModel:
    """The untrained network, in eval mode."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=19)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.momentum = 1.0  # of what it saw last
    for block in model.modules():  # last norms small, as training leaves them: dozens of large ones magnify rounding
        if isinstance(block, BasicBlock | Bottleneck):
            nn.init.uniform_((block.bn2 if isinstance(block, BasicBlock) else block.bn3).weight, 0.15, 0.35)
        elif isinstance(block, XceptionBlock):
            nn.init.uniform_(block.conv3.pointwise.bn.weight, 0.15, 0.35)
    streets = torch.stack([torch.from_numpy(render_scene(seed, 193, 257)[0]) for seed in (1, 2)])
    with torch.no_grad():
        model.train()(normalize_images(streets, model.preprocessing))
    return model.eval()


def row(name: str, model: SegModel, kind: str) -> str:
    """Export and compare: a line of the table, which says so if it cannot be done."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            export = export_model(model, Path(folder) / f"{name}{FORMATS[kind]}")
        except FastsegError as error:
            return f"| {name} | {kind} | cannot be exported: {error} |"
    check = export.check
    return (
        f"| {name} | {kind} | {export.megabytes:.1f} | {export.info.minimum_side} | {100 * check.agreement:.4f} % "
        f"| {check.logit_difference:.1e} | {check.largest_logit:.2f} | {time.perf_counter() - start:.0f} |"
    )


def document(rows: list[str], command: str) -> str:
    """The rows with their heading: what was run, where, and with which versions."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"""# Networks as exported files

`{command}`, {datetime.date.today()}, {platform.machine()},
torch threads: {torch.get_num_threads()}, {versions}.

ONNX opset {OPSET}; OpenVINO in float32; torch: the .pt2 of torch.export. 19 classes, untrained; norms have seen two
drawn streets. Each written file was run on drawn streets of {", ".join(f"{n}x{h}x{w}" for n, h, w in SIZES)}
(batch x height x width). Labels equal: of all their pixels, those with the label that the network gives in PyTorch;
where they differ, the network's two scores are as close as rounding is. Logits are compared inside the file. Smallest
side: of images that the file takes. Seconds: export and comparison, on a machine that did other work meanwhile.

{HEADER}
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def kept_rows(path: Path | None) -> dict[tuple[str, str], str]:
    """The rows that a table has already, by network and format."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    cells = ((line, line.strip("| ").split(" | ")) for line in lines if line.startswith("| "))
    return {(name, kind): line for line, (name, kind, *_) in cells if kind in FORMATS}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="PATTERN", nargs="*", default=["*"], help="in this order (default: all)")
    parser.add_argument("--to", nargs="+", choices=tuple(FORMATS), default=["onnx", "openvino"])
    parser.add_argument(
        "--write", metavar="FILE", type=Path, help="write the table after every network; other rows stay"
    )
    args = parser.parse_args()
    command = f"tools/export_all.py --to {' '.join(args.to)} --write {args.write}"
    rows = kept_rows(args.write)
    for name in dict.fromkeys(name for pattern in args.models for name in list_models(pattern)):
        model = network(name)
        for kind in args.to:
            rows[name, kind] = row(name, model, kind)
            print(rows[name, kind], flush=True)
        if args.write is not None:
            write_atomically(args.write, document(sorted(rows.values()), command).encode())


if __name__ == "__main__":
    main()
