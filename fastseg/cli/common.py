"""Options and help that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastseg.errors import ConfigError

if TYPE_CHECKING:
    from fastseg.predict import Predictor

DEFAULT_MODEL = "fast_scnn"


def add_predictor_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network, and how it looks at an image."""
    parser.add_argument(
        "--model",
        metavar="NAME|FILE",
        help=f"a name from `fastseg models`, or a file that `fastseg export` wrote (default: {DEFAULT_MODEL})",
    )
    add_weights_arguments(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="of the network's arithmetic: bf16 is the fastest on recent CPUs, fp16 on GPUs; labels change where two "
        "classes are close (default: fp32)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile: up to a minute at each of the first sizes, then faster; needs a C++ compiler on CPU",
    )
    parser.add_argument(
        "--max-mem",
        metavar="SIZE",
        help="let the network take at most 500MB, 2GB ... for an image: larger ones are computed in bands of rows, "
        "with the same labels",
    )
    parser.add_argument("--threads", metavar="N", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument(
        "--scales",
        metavar="FACTOR",
        nargs="+",
        type=float,
        default=[1.0],
        help="look at these sizes and average: --scales 0.75 1 1.25 (default: 1)",
    )
    parser.add_argument("--flip", action="store_true", help="look at the mirrored image, too, and average")


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Which weights the network has."""
    parser.add_argument(
        "--weights",
        metavar="NAME|PATH",
        help="published weights by name, or a weights file, checkpoint or run folder (default: the model's own)",
    )
    parser.add_argument(
        "--weights-format",
        metavar="NAME",
        help="whose file --weights is: fastseg (default), or espnet: a .pth file of ESPNet's authors",
    )


def build_predictor(args: argparse.Namespace) -> Predictor:
    """The predictor that the options of `add_predictor_arguments` describe."""
    from fastseg.memory import tune_cpu
    from fastseg.predict import Predictor

    tune_cpu()
    model, weights = resolve_model(args)
    return Predictor(
        model,
        weights=weights,
        weights_format=args.weights_format,
        device=args.device,
        scales=tuple(args.scales),
        flip=args.flip,
        precision=args.precision,
        compile=args.compile,
        threads=args.threads,
        max_mem=args.max_mem,
    )


def resolve_model(args: argparse.Namespace) -> tuple[str | Path, str | None]:
    """Network and weights that `--model`, `--weights` and `--weights-format` name, as `load_model` takes them."""
    from fastseg.weights import names_a_file, published_weights

    model, weights = args.model, args.weights
    published = {info.name for info in published_weights() if info.model == DEFAULT_MODEL}
    is_file = weights is not None and weights not in published and names_a_file(weights)
    if args.weights_format is not None and weights is None:
        raise ConfigError(f"--weights-format {args.weights_format} describes a file; name that file with --weights")
    if model is None and weights is not None and (is_file or args.weights_format is not None):
        return Path(weights), None  # the file says which network it is for
    return model or DEFAULT_MODEL, weights


def require_config_first(config: str) -> None:
    """Raises ConfigError for `key=value` where the configuration file should stand."""
    if "=" in config:
        raise ConfigError(f"the first argument is the configuration file, then come key=value; given {config!r}")


def parse_pairs(pairs: list[str], option: str) -> dict[str, object]:
    """`height=128 name=x` -> values as YAML reads them. Raises ConfigError for anything else."""
    import yaml

    table: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise ConfigError(f"{option} was given {pair!r}; expected key=value, such as height=128")
        try:
            table[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{option} {key}: {text!r} is no value; quote it, as in {key}='\"text\"'") from None
    return table


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[..., None]]:
    """A function `(done, total, ...)` that draws a bar on a terminal and is silent elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total, *rest: None
        return
    from tqdm import tqdm

    with tqdm(unit=unit, dynamic_ncols=True, leave=False) as bar:

        def show(done: int, total: int, *rest: object) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
