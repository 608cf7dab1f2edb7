"""What `tune` and `compare` show: a table, a picture, a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmfusion.reports import write_report
from lmfusion.tuning.alignment import Alignment
from lmfusion.tuning.changes import changes
from lmfusion.tuning.parts import Parts
from lmfusion.tuning.pictures import by_kind, by_length, draw
from lmfusion.tuning.search import Tuned
from lmfusion.tuning.statistics import Comparison, compare

FEW_UTTERANCES = 100


@dataclass(frozen=True)
class Report:
    """A table of rates and what stands around it; `facts` is all of it, for JSON."""

    names: list[str]
    rows: list[list[str]]
    verdict: str
    notes: list[str]
    facts: dict[str, Any]


def report(parts: Parts, tuned: Tuned, folder: Path, *, folds: int, seed: int = 0) -> Report:
    """Writes settings.json, tune.png and report.html into `folder`."""
    first = np.zeros(len(parts.names), dtype=np.int64)
    oracle = np.where(parts.there, parts.errors, np.iinfo(np.int64).max).argmin(axis=1)
    before, after = parts.alignments(list(first)), parts.alignments(list(tuned.held_out))
    comparison = compare(before, after, seed=seed)
    names = ["", "WER %", "95 % interval", "change", "probability of improvement", "MAPSSWE p"]
    rows = [["first of each list", _percent(comparison.rate_before),
             _interval(comparison.interval_before), "", "", ""]]
    forms = {}
    for form, chosen in tuned.by_form.items():
        forms[form] = compare(before, parts.alignments(list(chosen)), seed=seed)
        rows.append(_row(f"held out: {form}", forms[form]))
    rows.append(_row("held out: form and weights chosen", comparison))
    on_all = compare(before, parts.alignments(list(tuned.chosen)), seed=seed)
    rows.append(["(tuned and measured on the same)", _percent(on_all.rate_after), "", "", "", ""])
    best = compare(before, parts.alignments(list(oracle)), seed=seed)
    rows.append(["oracle: the best text of each list", _percent(best.rate_after), "", "", "", ""])
    settings = tuned.settings
    notes = [f"best on all: {_weights(tuned)}; form: {settings.form}",
             f"{tuned.points:,} points tried in {tuned.seconds:.2f} s, {folds} folds by utterance; "
             "every utterance is measured with what is best on the other folds"]
    if len(parts.names) < FEW_UTTERANCES:
        notes.append(f"{len(parts.names)} utterances are few: weights tuned on them may not hold; "
                     f"{FEW_UTTERANCES} or more are better")
    facts = {"settings": {**vars(settings.weights), "form": settings.form.to_dict()},
             "held_out": comparison.to_dict(), "on_all": on_all.to_dict(),
             "oracle": best.rate_after, "points": tuned.points, "seconds": tuned.seconds,
             "folds": folds,
             "by_form": [{"form": form.to_dict(), **each.to_dict()} for form, each in
                         forms.items()]}
    settings.write(folder / "settings.json", held_out=comparison.to_dict(), folds=folds,
                   model=parts.model)
    picture = draw(folder / "tune.png", before, after, ("before", "held out"), tuned.plane,
                   tuned.best, int(parts.reference_words.sum()))
    _write_page(folder / "report.html", "Tuning of n-best rescoring", comparison, names, rows,
                notes, picture, parts.names, parts.references, parts.chosen_texts(list(first)),
                parts.chosen_texts(list(tuned.held_out)), before, after)
    return Report(names, rows, comparison.verdict, notes, facts)


def compare_results(labels: tuple[str, str], names: Sequence[str], references: Sequence[str],
                    before_texts: Sequence[str], after_texts: Sequence[str],
                    before: Sequence[Alignment], after: Sequence[Alignment],
                    folder: Path | None, *, seed: int = 0) -> Report:
    """The same statistics for two results; writes compare.png and compare.html where there is a
    folder."""
    comparison = compare(before, after, seed=seed)
    columns = ["", "WER %", "95 % interval", "change", "probability of improvement", "MAPSSWE p"]
    rows = [[labels[0], _percent(comparison.rate_before), _interval(comparison.interval_before),
             "", "", ""], _row(labels[1], comparison)]
    differ = sum(one.split() != other.split() for one, other in zip(before_texts, after_texts))
    notes = [f"{differ} of {len(names)} texts differ"]
    facts = {**comparison.to_dict(), "texts_that_differ": differ,
             "by_length": [by_length(before), by_length(after)],
             "by_kind": [by_kind(before), by_kind(after)]}
    if folder is not None:
        picture = draw(folder / "compare.png", before, after, labels)
        _write_page(folder / "compare.html", f"{labels[0]} and {labels[1]}", comparison, columns,
                    rows, notes, picture, names, references, before_texts, after_texts, before,
                    after)
    return Report(columns, rows, comparison.verdict, notes, facts)


def _write_page(path: Path, title: str, comparison: Comparison, names: Sequence[str],
                rows: Sequence[Sequence[str]], notes: Sequence[str], picture: str,
                utterances: Sequence[str], references: Sequence[str], before_texts: Sequence[str],
                after_texts: Sequence[str], before: Sequence[Alignment],
                after: Sequence[Alignment]) -> None:
    write_report("comparison.html", path, {
        "title": title, "comparison": comparison, "table": {"names": names, "rows": rows},
        "notes": notes, "picture": picture,
        "changes": changes(utterances, references, before_texts, after_texts, before, after)})


def _row(name: str, comparison: Comparison) -> list[str]:
    change = 100 * (comparison.rate_after - comparison.rate_before)
    low, high = (100 * each for each in comparison.interval_change)
    return [name, _percent(comparison.rate_after), _interval(comparison.interval_after),
            f"{change:+.2f} [{low:+.2f}, {high:+.2f}]",
            f"{100 * comparison.probability_of_improvement:.1f} %", f"{comparison.mapsswe_p:.4f}"]


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f}"


def _interval(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.2f} - {100 * interval[1]:.2f}"


def _weights(tuned: Tuned) -> str:
    weights = tuned.settings.weights
    parts = [f"rank weight {weights.rank_weight:g}" if weights.rank_weight
             else f"acoustic weight {weights.acoustic_weight:g}", f"weight {weights.weight:.4g}",
             f"word bonus {weights.word_insertion_bonus:.4g}"]
    if weights.ngram_weight:
        parts.append(f"n-gram weight {weights.ngram_weight:.4g}")
    if weights.length_normalization:
        parts.append(f"length normalisation {weights.length_normalization:g}")
    return ", ".join(parts)
