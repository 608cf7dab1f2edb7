"""Pictures of a tuning and of a comparison, as one PNG each."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmfusion.tuning.alignment import Alignment
from lmfusion.tuning.search import Plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("substitutions", "deletions", "insertions")
_LENGTHS = (0, 5, 10, 15, 20, 30, 10**9)  # words of the reference


def draw(path: Path, before: Sequence[Alignment], after: Sequence[Alignment],
         names: tuple[str, str], plane: Plane | None = None, best: tuple[int, int] = (0, 0),
         words: int = 1) -> str:
    """Error rates by length and by kind, and a heat map of a plane of weights.

    Args:
        path: of the PNG.
        words: of all references, for the rates of the map.

    Returns:
        The picture in base 64, for a page.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(5 * (3 if plane else 2), 4), layout="constrained")
    axes = figure.subplots(1, 3 if plane else 2)
    if plane is not None:
        _heat_map(axes[0], plane, best, words)
    _by_length(axes[-2], before, after, names)
    _by_kind(axes[-1], before, after, names)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
    return base64.b64encode(content.getvalue()).decode()


def by_length(alignments: Sequence[Alignment]) -> dict[str, float]:
    """Error rate by words of the reference; lengths that no reference has are left out."""
    rates = {}
    for low, high in itertools.pairwise(_LENGTHS):
        some = [each for each in alignments if low <= each.words < high]
        if total := sum(each.words for each in some):
            name = f"{low}-{high - 1}" if high < 10**9 else f"{low}+"
            rates[name] = sum(each.errors for each in some) / total
    return rates


def by_kind(alignments: Sequence[Alignment]) -> dict[str, float]:
    """Errors of every kind over the words of the references."""
    total = max(sum(each.words for each in alignments), 1)
    return {kind: sum(getattr(each, kind) for each in alignments) / total for kind in KINDS}


def _heat_map(axes: Axes, plane: Plane, best: tuple[int, int], words: int) -> None:
    rates = 100 * plane.errors.sum(axis=2).T / max(words, 1)
    shown: Any = axes.imshow(rates, origin="lower", aspect="auto", cmap="viridis_r")
    axes.figure.colorbar(shown, ax=axes, label="word error rate, %")
    ticks = np.arange(0, len(plane.weight), 4)
    axes.set_xticks(ticks, ["LM alone" if plane.acoustic[tick] == 0 else f"{plane.weight[tick]:.2g}"
                            for tick in ticks], rotation=45)
    bonuses = plane.bonus[best[0]]
    ticks = np.arange(0, len(bonuses), 5)
    axes.set_yticks(ticks, [f"{bonuses[tick]:.2g}" for tick in ticks])
    axes.plot(best[0], best[1], "o", mfc="none", mec="red", ms=12)
    axes.set(xlabel="weight of the language model", ylabel="word bonus (at the chosen weight)",
             title=str(plane.form))


def _bars(axes: Axes, groups: Sequence[dict[str, float]], names: Sequence[str]) -> None:
    labels = list(groups[0])
    for number, (group, name) in enumerate(zip(groups, names)):
        axes.bar(np.arange(len(labels)) + 0.4 * number, [100 * group[label] for label in labels],
                 width=0.38, label=name)
    axes.set_xticks(np.arange(len(labels)) + 0.2, labels)
    axes.set_ylabel("word error rate, %")
    axes.legend()


def _by_length(axes: Axes, before: Sequence[Alignment], after: Sequence[Alignment],
               names: Sequence[str]) -> None:
    _bars(axes, [by_length(before), by_length(after)], names)
    axes.set(xlabel="words of the reference", title="by length")


def _by_kind(axes: Axes, before: Sequence[Alignment], after: Sequence[Alignment],
             names: Sequence[str]) -> None:
    _bars(axes, [by_kind(before), by_kind(after)], names)
    axes.set_title("by kind")
