"""Turn a trained run into a published weights file: `python -m fastseg.weights.publish RUN --name camvid ...`.

Half precision, without auxiliary heads, with terms and scores in the metadata; prints the line for `zoo._PUBLISHED`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from fastseg.weights.files import file_sha256, read_weights, save_weights
from fastseg.weights.zoo import EMBEDDED


def publish(source: Path, *, name: str, licence: str, measured: str, folder: Path = EMBEDDED) -> Path:
    """Write `folder/<model>_<name>.safetensors` from a weights file, checkpoint or run folder, and return its path.

    Raises MissingFileError and CheckpointError as `read_weights` does.
    """
    state, info = read_weights(source)
    info = replace(info, name=name, licence=licence, metric_measured=measured)
    return save_weights(folder / f"{info.model}_{name}.safetensors", state, info, half=True, drop_aux=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fastseg.weights.publish", description=publish.__doc__)
    parser.add_argument("source", type=Path, help="weights file, checkpoint or run folder")
    parser.add_argument("--name", required=True, help="the weights' name, such as camvid")
    parser.add_argument("--licence", required=True, help="terms, of code and of data")
    parser.add_argument("--measured", required=True, help="score with data, split, protocol and date")
    args = parser.parse_args()
    path = publish(args.source, name=args.name, licence=args.licence, measured=args.measured)
    print(f'"{args.name}": ("{path.name}", "{file_sha256(path)}"),  # {path.stat().st_size / 1e6:.2f} MB')


if __name__ == "__main__":
    main()
