"""`lmfusion compare`: whether one result is better than another, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmfusion.cli.output import AsJson, print_report


def compare(before: Annotated[Path, typer.Argument(metavar="A")],
            after: Annotated[Path, typer.Argument(metavar="B")],
            ref: Annotated[Path | None, typer.Option(
                "--ref", metavar="FILE", help="references; default: those in A")] = None,
            output: Annotated[Path | None, typer.Option(
                "-o", "--output", metavar="FOLDER",
                help="for compare.html and compare.png")] = None,
            seed: Annotated[int, typer.Option(help="of the bootstrap")] = 0,
            json_: AsJson = False) -> None:
    """Compare two results of the same utterances: error rates, intervals, tests.

    A and B are n-best files of any kind (their first hypotheses count), trn, Kaldi texts, JSON or
    lines. Case and punctuation do not count as errors.
    """
    from lmfusion.tuning.alignment import align, normalized
    from lmfusion.tuning.references import best_texts, references_beside, references_of
    from lmfusion.tuning.report import compare_results
    one, other = best_texts(before), best_texts(after)
    names, texts = [name for name, _ in one], [text for _, text in one]
    others = _in_order(one, other, before, after)
    references = references_of(names, ref) if ref else references_beside(names, before)
    plain = [normalized(text) for text in references]
    found = compare_results(
        (str(before), str(after)), [name or str(number) for number, name in enumerate(names)],
        references, texts, others, align(plain, [normalized(text) for text in texts]),
        align(plain, [normalized(text) for text in others]), output, seed=seed)
    print_report(found, json_)


def _in_order(one: list[tuple[str | None, str]], other: list[tuple[str | None, str]],
              before: Path, after: Path) -> list[str]:
    """The texts of the second result in the order of the first's utterances."""
    if len(one) == len(other) and all(name is None for name, _ in one):
        return [text for _, text in other]
    by_name = dict(other)
    missing = [name for name, _ in one if name not in by_name]
    if missing or len(one) != len(other):
        raise ValueError(
            f"{before} and {after} are not of the same utterances: {len(one)} and {len(other)} of "
            f"them, {len(missing)} of the first missing in the second"
            + (f", such as {missing[0]!r}" if missing else ""))
    return [by_name[name] for name, _ in one]
