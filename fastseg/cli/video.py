"""`fastseg video`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

SUMMARY = "label videos, cameras and streams frame by frame"
EXAMPLES = """\
  fastseg video drive.mp4 --out labelled.mp4
  fastseg video drive.mp4                    # statistics only
  fastseg video 0 --budget 33ms --progress   # the first camera; Ctrl-C ends it
  fastseg video drive.mp4 --save ids --out labels.mkv
  ffmpeg -i drive.mp4 -f rawvideo -pix_fmt rgb24 - | fastseg video - --size 1280x720 --out - |
    ffmpeg -f rawvideo -pix_fmt rgb24 -s 1280x720 -r 25 -i - labelled.mp4"""
TERMINATED = 143  # the shell's number for SIGTERM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from fastseg.cli.common import add_predictor_arguments

    parser.add_argument(
        "input", metavar="INPUT", help="video file, camera index (0), URL that OpenCV opens, or -: raw frames"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="video file (.mp4, .m4v, .mov, .mkv, .avi), or -: raw frames on standard output (default: statistics "
        "only)",
    )
    parser.add_argument(
        "--save",
        metavar="KIND",
        default="overlay",
        help="overlay: frame under class colours (default); color: class colours; ids: class indices, in a lossless "
        "file (.mkv, .avi) or, raw, one byte a pixel",
    )
    parser.add_argument(
        "--size", metavar="WxH", help="of raw frames on standard input, such as 1280x720: width first, as ffmpeg has it"
    )
    parser.add_argument("--pixel-format", metavar="NAME", help="of raw frames, in and out: rgb24 (default) or bgr24")
    parser.add_argument(
        "--fps",
        metavar="RATE",
        type=float,
        help="frames a second of raw frames (default: 25); for others, in place of the input's own",
    )
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="what the network may take per frame, such as 33ms: beyond it the scale of its input is lowered step by "
        "step, and raised again when there is time",
    )
    parser.add_argument(
        "--skip", action="store_true", help="with --budget: skip frames, which show the labels before them, instead"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="stop after N frames")
    parser.add_argument("--progress", action="store_true", help="a line of statistics every second, on standard error")
    parser.add_argument("--overwrite", action="store_true", help="replace a video that exists")
    add_predictor_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from fastseg.budget import Pace, ScalePace, SkipPace, parse_budget
    from fastseg.cli.common import build_predictor
    from fastseg.errors import ConfigError, OutputError, printable
    from fastseg.frames import open_source, parse_size
    from fastseg.sinks import FileSink, FrameSink, RawSink
    from fastseg.video import VideoSummary, check_video_kind, run_video

    check_video_kind(args.save)
    pace: Pace | None = None
    if args.budget is not None:
        budget = parse_budget(args.budget)
        pace = SkipPace(budget) if args.skip else ScalePace(budget)
    elif args.skip:
        raise ConfigError("--skip says how to keep a budget; add --budget, such as --budget 33ms")
    size = None if args.size is None else parse_size(args.size)
    if args.pixel_format is not None and "-" not in (args.input, args.out):
        raise ConfigError("--pixel-format is for raw frames ('-'), of which there are none here; leave it out")
    pixel_format = args.pixel_format or "rgb24"
    if args.input == "-" and sys.stdin is None:
        raise ConfigError("standard input is closed; give it raw frames, or name a video file")
    if sys.stdout is None:
        raise ConfigError("standard output is closed; redirect it, to /dev/null where nothing of it is wanted")
    if args.out not in (None, "-") and _same_file(args.input, args.out):
        raise OutputError(f"{printable(args.out)} is the input itself; choose another name for --out")
    # small things first: loading a network takes its time
    stdin = sys.stdin.buffer if args.input == "-" else None
    source = open_source(args.input, size=size, pixel_format=pixel_format, fps=args.fps, stdin=stdin)
    sink: FrameSink | None = None
    if args.out == "-":
        sink = RawSink(sys.stdout.buffer, pixel_format)
    elif args.out is not None:
        sink = FileSink(Path(args.out), source.fps, lossless=args.save == "ids", overwrite=args.overwrite)
    predictor = build_predictor(args)

    def show(summary: VideoSummary) -> None:
        print(summary.line(), file=sys.stderr, flush=True)

    try:
        with _stopped_by_sigterm():
            summary = run_video(
                predictor,
                source,
                sink,
                kind=args.save,
                pace=pace,
                limit=args.limit,
                on_progress=show if args.progress else None,
            )
    except _TerminatedError:
        print("fastseg: terminated", file=sys.stderr)
        return TERMINATED
    report = sys.stderr if args.out == "-" else sys.stdout
    print(summary.text(), file=report)
    if args.out not in (None, "-") and summary.written:
        print(f"wrote {args.out}")
    return 1 if source.cut_off else 0


def _same_file(source: str, out: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # one of them is no file
        return Path(source.removeprefix("file://")).samefile(out)
    return False


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a video as Ctrl-C does."""


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # launchers send it twice; what comes now takes seconds at most
        raise _TerminatedError

    try:
        previous = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: the embedding program handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
