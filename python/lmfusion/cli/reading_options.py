"""The options of commands that read n-best files; docs/nbest.md says when each is needed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

_PANEL = "Reading"
_Command = TypeVar("_Command", bound=Callable[..., None])


def _option(name: str, kind: Any, flag: str, text: str, metavar: str | None = None
            ) -> inspect.Parameter:
    option = typer.Option(flag, help=text, metavar=metavar, rich_help_panel=_PANEL)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None,
                             annotation=Annotated[kind, option])


_OPTIONS = (
    _option("missing", str | None, "--missing", '"last" puts hypotheses without a score last'),
    _option("log_base", float | None, "--log-base", "of the scores, where the format does not say"),
    _option("column", list[str] | None, "--column", "of a table: utterance=, text=, score=",
            "ROLE=NAME"),
    _option("beam_size", int | None, "--beam-size", "lines an utterance of NeMo's .tsv"),
    _option("score_files", list[Path] | None, "--scores",
            "scores beside a Kaldi text; may be repeated", "FILE"),
    _option("costs", bool | None, "--costs/--no-costs", "whether those are costs"),
    _option("speaker", int | None, "--speaker", "of an ESPnet folder of several"),
)


def reads_nbest(command: _Command) -> _Command:
    """Gives a command these options as one argument `reading`, keywords of `lmfusion.nbest.read`.

    Raises, when the command is called:
        ValueError: a column is not ROLE=NAME.
    """
    def with_options(**arguments: Any) -> Any:
        given = {each.name: arguments.pop(each.name) for each in _OPTIONS}
        return command(**arguments, reading=_reading(**given))

    signature = inspect.signature(command, eval_str=True)
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                  for each in signature.parameters.values() if each.name != "reading"]
    with_options.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*parameters, *_OPTIONS])
    with_options.__doc__ = command.__doc__
    return with_options  # type: ignore[return-value]


def _reading(missing: str | None, log_base: float | None, column: list[str] | None,
             beam_size: int | None, score_files: list[Path] | None, costs: bool | None,
             speaker: int | None) -> dict[str, Any]:
    named = {}
    for text in column or ():
        role, equals, name = text.partition("=")
        if not equals:
            raise ValueError(f"--column {text}: utterance=NAME, text=NAME or score=NAME expected")
        named[role] = name
    return {"missing": missing, "log_base": log_base, "columns": named, "beam_size": beam_size,
            "scores": score_files or (), "costs": costs, "speaker": speaker}
