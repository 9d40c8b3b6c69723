"""The `fastseg` command: a table from command, of one word or two, to module.

Each module has `SUMMARY`, `add_arguments(parser)` and `run(args) -> exit code`, and imports what is heavy inside `run`,
so that help and spelling mistakes answer at once.

Exit codes: 0 well, 1 some inputs failed, 2 the request cannot be met as given, 128 + the signal that stopped a training
(130 interrupted, 143 terminated).
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from fastseg.cli import (
    bench,
    bench_data,
    data_check,
    data_inspect,
    data_show,
    demo,
    env,
    evaluate,
    export,
    models,
    pick,
    predict,
    submit_cityscapes,
    train,
    video,
)
from fastseg.errors import FastsegError, UnknownNameError, suggest
from fastseg.version import __version__

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "export": export,
    "video": video,
    "models": models,
    "data inspect": data_inspect,
    "data check": data_check,
    "data show": data_show,
    "bench": bench,
    "bench data": bench_data,
    "pick": pick,
    "submit cityscapes": submit_cityscapes,
    "demo": demo,
    "env": env,
}
FAILED, INTERRUPTED, BROKEN_PIPE = 2, 130, 141  # the shell's numbers for SIGINT and SIGPIPE


class _Parser(argparse.ArgumentParser):
    """Mistakes in arguments are FastsegErrors like any other: one line, no usage block."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UnknownNameError(f"{message} (`{self.prog} --help` explains)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (`sys.argv` unless given) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    _show_notes()
    try:
        code = _dispatch([argument for argument in arguments if argument != "--debug"])
        sys.stdout.flush()
    except FastsegError as error:
        if debug:
            raise
        print(f"fastseg: error: {_rank()}{' '.join(str(error).split())}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        if debug:
            raise
        print("fastseg: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has gone; the interpreter would complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if debug or error.filename is None:  # without a file it is no mistake in the request
            raise
        print(f"fastseg: error: {_rank()}{error.filename}: {error.strerror}", file=sys.stderr)
        return FAILED
    return code


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name.startswith("-"):
        _overview("fastseg", COMMANDS).parse_args([name])
        raise AssertionError("help and version have ended the program")
    name, rest = command_of(arguments)
    parser = _command_parser(name)
    # intermixed: `key=value` and input files may stand before and after options
    args, unknown = parser.parse_known_intermixed_args(rest)
    if unknown:
        shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        options = [option for action in shown for option in action.option_strings if option.startswith("--")]
        raise UnknownNameError(f"fastseg {name} has no option {unknown[0]!r}; {suggest(unknown[0], options)}")
    return COMMANDS[name].run(args)


def command_of(arguments: list[str]) -> tuple[str, list[str]]:
    """The command, of one word or two, that arguments begin with, and the rest of them.

    A first word of two alone prints help and ends the program. Raises UnknownNameError for what is no command.
    """
    first, *rest = arguments
    members = {
        name.removeprefix(f"{first} "): module for name, module in COMMANDS.items() if name.startswith(f"{first} ")
    }
    if not members and first not in COMMANDS:
        firsts = {name.partition(" ")[0] for name in COMMANDS}
        raise UnknownNameError(f"unknown command {first!r}; {suggest(first, firsts)}")
    if first in COMMANDS and not (rest and rest[0] in members):  # `bench` stands alone and before `data`
        near = [] if not rest or rest[0].startswith("-") else difflib.get_close_matches(rest[0], members, n=1)
        if near:
            raise UnknownNameError(f"unknown command '{first} {rest[0]}'; did you mean '{first} {near[0]}'?")
        return first, rest
    second, *rest = rest or ["--help"]
    if second.startswith("-"):
        _overview(f"fastseg {first}", members).parse_args([second])
        raise AssertionError("help and version have ended the program")
    if second not in members:
        raise UnknownNameError(f"unknown command '{first} {second}'; {suggest(second, members)}")
    return f"{first} {second}", rest


def _overview(program: str, commands: dict[str, ModuleType]) -> _Parser:
    width = max(map(len, commands))
    table = "\n".join(f"  {name:<{width}}  {module.SUMMARY}" for name, module in commands.items())
    parser = _Parser(
        prog=program,
        usage=f"{program} COMMAND ...",
        description="Real-time semantic segmentation: train, evaluate and predict at any image size.",
        epilog=f"commands:\n{table}\n\n`{program} COMMAND --help` shows a command's options and examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastseg {__version__}")
    return parser


def _command_parser(name: str) -> _Parser:
    module = COMMANDS[name]
    parser = _Parser(
        prog=f"fastseg {name}",
        description=module.SUMMARY[0].upper() + module.SUMMARY[1:] + ".",
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _show_notes() -> None:
    """What the library logs goes to standard error, a line each; of several processes, the first one's notes."""
    if logging.lastResort is not None and os.environ.get("RANK", "0") == "0":
        logging.getLogger("fastseg").setLevel(logging.INFO)
        logging.lastResort.setLevel(logging.INFO)


def _rank() -> str:
    """Under torchrun every process may fail for its own reason: say which one speaks."""
    alone = os.environ.get("WORLD_SIZE", "1") in ("", "1") or "RANK" not in os.environ
    return "" if alone else f"[rank {os.environ['RANK']}] "
