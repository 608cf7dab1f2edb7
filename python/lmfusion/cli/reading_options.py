"""The options of commands that read n-best files; docs/nbest.md says when each is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_PANEL = "Reading"

Missing = Annotated[str | None, typer.Option(
    "--missing", help='"last" puts hypotheses without a score last', rich_help_panel=_PANEL)]
LogBase = Annotated[float | None, typer.Option(
    "--log-base", help="of the scores, where the format does not say", rich_help_panel=_PANEL)]
ColumnNames = Annotated[list[str] | None, typer.Option(
    "--column", metavar="ROLE=NAME", help="of a table: utterance=, text=, score=",
    rich_help_panel=_PANEL)]
BeamSize = Annotated[int | None, typer.Option(
    "--beam-size", help="lines an utterance of NeMo's .tsv", rich_help_panel=_PANEL)]
ScoreFiles = Annotated[list[Path] | None, typer.Option(
    "--scores", metavar="FILE", help="scores beside a Kaldi text; may be repeated",
    rich_help_panel=_PANEL)]
Costs = Annotated[bool | None, typer.Option(
    "--costs/--no-costs", help="whether those are costs", rich_help_panel=_PANEL)]
Speaker = Annotated[int | None, typer.Option(
    "--speaker", help="of an ESPnet folder of several", rich_help_panel=_PANEL)]


def reading(missing: str | None, log_base: float | None, columns: list[str] | None,
            beam_size: int | None, scores: list[Path] | None, costs: bool | None,
            speaker: int | None) -> dict[str, Any]:
    """As arguments of `lmfusion.nbest.read`.

    Raises:
        ValueError: a column is not ROLE=NAME.
    """
    named = {}
    for text in columns or ():
        role, equals, name = text.partition("=")
        if not equals:
            raise ValueError(f"--column {text}: utterance=NAME, text=NAME or score=NAME expected")
        named[role] = name
    return {"missing": missing, "log_base": log_base, "columns": named, "beam_size": beam_size,
            "scores": scores or (), "costs": costs, "speaker": speaker}
