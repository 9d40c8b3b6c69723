"""`fastseg video`."""

from __future__ import annotations

import argparse
import sys

SUMMARY = "label videos, cameras and streams frame by frame"
EXAMPLES = """\
  fastseg video drive.mp4 --out labelled.mp4
  fastseg video drive.mp4                    # statistics only
  fastseg video 0 --budget 33ms --progress   # the first camera; Ctrl-C ends it
  fastseg video drive.mp4 --save ids --out labels.mkv
  ffmpeg -i drive.mp4 -f rawvideo -pix_fmt rgb24 - | fastseg video - --size 1280x720 --out - |
    ffmpeg -f rawvideo -pix_fmt rgb24 -s 1280x720 -r 25 -i - labelled.mp4"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from fastseg.cli.common import add_predictor_arguments

    parser.add_argument(
        "input", metavar="INPUT", help="video file, camera index (0), URL that OpenCV opens, or -: raw frames"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="video file (.mp4, .mov, .mkv, .avi), or -: raw frames on standard output (default: statistics only)",
    )
    parser.add_argument(
        "--save",
        metavar="KIND",
        default="overlay",
        help="overlay: frame under class colours (default); color: class colours; ids: class indices, in a lossless "
        "file (.mkv, .avi) or, raw, one byte a pixel",
    )
    parser.add_argument("--size", metavar="WxH", help="of raw frames on standard input, such as 1280x720")
    parser.add_argument(
        "--pixel-format", metavar="NAME", default="rgb24", help="of raw frames: rgb24 (default) or bgr24"
    )
    parser.add_argument(
        "--fps", metavar="RATE", type=float, help="of raw frames (default: 25), or what the input lacks"
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
    from pathlib import Path

    from fastseg.budget import Pace, ScalePace, SkipPace, parse_budget
    from fastseg.cli.common import build_predictor
    from fastseg.errors import ConfigError
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
    # small things first: loading a network takes its time
    stdin = sys.stdin.buffer if args.input == "-" else None
    source = open_source(args.input, size=size, pixel_format=args.pixel_format, fps=args.fps, stdin=stdin)
    sink: FrameSink | None = None
    if args.out == "-":
        sink = RawSink(sys.stdout.buffer, args.pixel_format)
    elif args.out is not None:
        sink = FileSink(Path(args.out), source.fps, lossless=args.save == "ids", overwrite=args.overwrite)
    predictor = build_predictor(args)

    def show(summary: VideoSummary) -> None:
        print(summary.line(), file=sys.stderr, flush=True)

    summary = run_video(
        predictor,
        source,
        sink,
        kind=args.save,
        pace=pace,
        limit=args.limit,
        on_progress=show if args.progress else None,
    )
    report = sys.stderr if args.out == "-" else sys.stdout
    print(summary.text(), file=report)
    if args.out not in (None, "-"):
        print(f"wrote {args.out}")
    return 1 if source.cut_off else 0
