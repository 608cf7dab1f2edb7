"""The command line `lmfusion`: one module a command, and here their registry.

stdout has the answer, stderr all else. The exit status is 0; 1 where a check that was asked for
fails; 2 after an error, whose last line on stderr says what to do; 130 after Ctrl-C.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import typer
from typer.exceptions import TyperException

from lmfusion._core import __version__
from lmfusion.cli import (
    bench,
    brain_to_text,
    compare,
    compute_sentence_scores,
    continue_,
    default_model,
    demo,
    explain,
    export,
    export_truecaser,
    inspect,
    models,
    prime,
    rescore,
    score,
    selfcheck,
    serve,
    tune,
)
from lmfusion.errors import Error, ExportError


class Command(NamedTuple):
    """A line of the registry."""

    name: str
    run: Callable[..., int | None]  # its docstring is the help, its parameters are the options
    extra: str = "export"  # of pyproject.toml, with the packages that the command needs


COMMANDS = (
    Command("score", score.score),
    Command("continue", continue_.continue_),
    Command("explain", explain.explain),
    Command("rescore", rescore.rescore, "tune"),
    Command("tune", tune.tune, "tune"),
    Command("compare", compare.compare, "tune"),
    Command("compute-sentence-scores", compute_sentence_scores.compute_sentence_scores),
    Command("brain-to-text", brain_to_text.brain_to_text),
    Command("bench", bench.bench),
    Command("inspect", inspect.inspect),
    Command("selfcheck", selfcheck.selfcheck),
    Command("export", export.export),
    Command("export-truecaser", export_truecaser.export_truecaser),
    Command("models", models.models),
    Command("default-model", default_model.default_model),
    Command("prime", prime.prime),
    Command("serve", serve.serve, "serve"),
    Command("demo", demo.demo, "demo"),
)
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        The exit status. A mistake in the arguments raises SystemExit(2).
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status = _application()(given, prog_name="lmfusion", standalone_mode=False)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        if context is not None:
            print(context.get_usage(), file=sys.stderr)
            print(f"Try '{context.command_path} --help' for help.", file=sys.stderr)
        _fail(error.format_message() if hasattr(error, "format_message") else str(error))
        raise SystemExit(2) from None
    return int(status or 0)


def _application() -> typer.Typer:
    rich: Literal["rich"] | None = "rich" if sys.stdout.isatty() else None
    application = typer.Typer(help="Exact language-model scores for beam-search decoders.",
                              rich_markup_mode=rich, pretty_exceptions_enable=False)
    application.callback()(_of_all_commands)
    for command in COMMANDS:
        application.command(command.name, help=command.run.__doc__)(_guarded(command))
    return application


def _print_version(asked: bool) -> None:
    if asked:
        print(f"lmfusion {__version__}")
        raise typer.Exit()


def _of_all_commands(
        version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True,
                                              help="print the version")] = False) -> None:
    del version


def _guarded(command: Command) -> Callable[..., int]:
    """The command with its errors as one line on stderr and an exit status."""
    @functools.wraps(command.run)
    def run(**arguments: Any) -> int:
        try:
            status = command.run(**arguments)
            sys.stdout.flush()
        except ModuleNotFoundError as error:
            return _fail(f"this command needs the package {error.name}: "
                         f"pip install 'lmfusion[{command.extra}]'")
        except BrokenPipeError:  # the reader of stdout has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            return INTERRUPTED
        except OSError as error:
            named = error.filename is not None and error.strerror
            return _fail(f"{error.filename}: {error.strerror}" if named else str(error))
        except (Error, ExportError, ValueError) as error:
            return _fail(str(error))
        return status or 0
    return run


def _fail(message: str) -> int:
    print(f"lmfusion: {' '.join(message.split())}", file=sys.stderr)
    return 2
