"""What commands print: JSON, a table for people on a terminal, the same plain for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lmfusion.tuning.report import Report

AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def print_json(value: Any) -> None:
    """One document; NaN and infinity, which JSON does not have, as null."""
    print(json.dumps(_finite(value), indent=1, ensure_ascii=False), flush=True)


def print_table(names: Sequence[str], rows: Iterable[Sequence[Any]], *,
                title: str | None = None) -> None:
    """A table where stdout is a terminal; else the names and a line a row, separated by tabs.

    Numbers are right of their column; a float is printed with four decimals.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for line in [list(names), *cells]:
            print("\t".join(line))
        sys.stdout.flush()
        return
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for place, name in enumerate(names):
        right = bool(cells) and all(_is_number(row[place]) for row in cells)
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def print_report(report: Report, json_: bool) -> None:
    """What tuning or a comparison found: the table, then what it means; or all of it as JSON."""
    if json_:
        print_json(report.facts)
        return
    print_table(report.names, report.rows)
    for line in (report.verdict, *report.notes):
        note(line)


def progress_bar(**options: Any) -> Progress:
    """Done, all, rate and remaining time, on stderr; nothing where that is no terminal."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                    TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
                    console=Console(stderr=True), disable=not sys.stderr.isatty(), **options)


def note(line: str) -> None:
    """A line on stderr that no error is."""
    print(f"lmfusion: {line}", file=sys.stderr, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _is_number(text: str) -> bool:
    return not text or text.lstrip("+-").replace(".", "", 1).replace(",", "").rstrip("%").strip(
        ).isdecimal() or text in ("nan", "inf", "-inf")


class Steps:
    """Progress of long work, on stderr: a bar with rate and remaining time on a terminal, else a
    line a minute. `with Steps("rescoring", 1000) as steps: steps.advance(10)`."""

    SECONDS_A_LINE = 60.0

    def __init__(self, what: str, total: int, unit: str = "hypotheses") -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = self._skipped = 0
        self._begin = self._line = time.monotonic()
        self._bar = progress_bar()
        self._task = self._bar.add_task(what, total=total, rate="")

    def __enter__(self) -> Steps:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def skip(self, count: int) -> None:
        """So many were done before: they do not count for the rate."""
        self._skipped += count
        self.advance(count)

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        seconds = time.monotonic() - self._begin
        rate = max(self._done - self._skipped, 0) / seconds if seconds > 0 else 0.0
        self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f}/s")
        if self._bar.disable and time.monotonic() - self._line > self.SECONDS_A_LINE:
            self._line = time.monotonic()
            left = (self._total - self._done) / rate if rate else float("inf")
            note(f"{self._what}: {self._done:,} of {self._total:,} {self._unit}, {rate:,.0f} a "
                 f"second, {left / 60:,.1f} minutes left")
