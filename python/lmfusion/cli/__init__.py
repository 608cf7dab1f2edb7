"""The command line: one module a command, each with `add_to` and `run`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lmfusion.cli import (
    default_model,
    demo,
    explain,
    export,
    export_truecaser,
    inspect,
    prime,
    score,
)
from lmfusion.errors import Error, ExportError

COMMANDS = (export, export_truecaser, default_model, inspect, score, explain, prime, demo)
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        0, or 2 after an error, which is one line on stderr.
    """
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        return _fail(f"this command needs the package {error.name}: "
                     f"pip install 'lmfusion[{parsed.extra}]'")
    except BrokenPipeError:  # the reader of stdout has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return INTERRUPTED
    except (Error, ExportError, OSError, ValueError) as error:
        return _fail(str(error))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lmfusion", description="Exact language-model scores for beam-search decoders.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def _fail(message: str) -> int:
    print(f"lmfusion: {' '.join(message.split())}", file=sys.stderr)
    return 2
