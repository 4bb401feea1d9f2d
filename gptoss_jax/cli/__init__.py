"""The command line: ``gptoss-jax COMMAND``; `_COMMANDS` lists them.

Exit status 0, or 1 with one line on stderr that says what is wrong. Ctrl-C ends with 130 and leaves no half file.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from gptoss_jax.cli.compiled import keep_compiled_programs

_COMMANDS = {
    "generate": ("text", "write a continuation or an answer, token by token"),
    "chat": ("text", "talk with the model in the terminal"),
    "trace": ("routing", "record which experts serve which token; figures and the explorer"),
    "inspect": ("folders", "what is in a checkpoint folder"),
    "verify": ("folders", "check a checkpoint folder tensor by tensor and byte by byte"),
    "convert": ("folders", "change layout, pack to MXFP4, or write random weights at full size"),
    "doctor": ("doctor", "versions, devices, memory: what would fail, and how to mend it"),
    "bench": ("bench", "how fast it runs here, and how far that is from the memory's limit"),
    "train": ("small", "train the built-in model"),
    "eval": ("small", "measure a model: bits per byte, answers, experts"),
    "demo": ("routing", "a real text through the model: experts printed, heat map drawn"),
}
_PASSED_ON = {"train", "eval"}  # these parse their own options


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gptoss-jax",
        description="gpt-oss in JAX: run it, look at its experts, check its files.",
        epilog="Each command has --help with examples, e.g.  gptoss-jax trace --help",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in _COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=name not in _PASSED_ON,
        )
        if name == command and name not in _PASSED_ON:
            add = getattr(importlib.import_module(f"gptoss_jax.cli.{module}"), f"add_{name}")
            add(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    keep_compiled_programs()
    command = next((word for word in arguments if word in _COMMANDS), None)
    try:
        if command in _PASSED_ON and arguments[0] == command:
            return importlib.import_module(f"gptoss_jax.cli.{_COMMANDS[command][0]}").pass_on(command, arguments[1:])
        options = _parser(command).parse_args(arguments)
        return options.run(options) or 0
    except KeyboardInterrupt:
        print("gptoss-jax: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has left
        sys.stderr.close()
        return 0
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"gptoss-jax: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
