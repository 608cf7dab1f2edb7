"""The arcs of a lattice: one by one, and as columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np


@dataclass(frozen=True, slots=True)
class Arc:
    """One arc of a lattice. Log-probabilities in nats; -inf: the arc is never taken. Its repr has
    no label: it may stand in a log."""

    start: int  # node
    end: int  # node
    label: str = field(default="", repr=False)  # as the file writes it; "" is epsilon
    acoustic: float = 0.0
    ngram: float = 0.0  # of the recogniser's own language model
    times: tuple[float, float] | None = None  # seconds from the beginning of the recording


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """All arcs of a lattice, [arcs] each; `label` counts in `labels`."""

    start: np.ndarray
    end: np.ndarray
    label: np.ndarray
    acoustic: np.ndarray
    ngram: np.ndarray
    labels: tuple[str, ...]

    @classmethod
    def of(cls, arcs: Sequence[Arc]) -> Columns:
        """Of arcs whose node numbers fit into 64 bits."""
        numbers: dict[str, int] = {}
        label = [numbers.setdefault(arc.label, len(numbers)) for arc in arcs]
        return cls(np.array([arc.start for arc in arcs], dtype=np.int64),
                   np.array([arc.end for arc in arcs], dtype=np.int64),
                   np.array(label, dtype=np.int64),
                   np.array([arc.acoustic for arc in arcs], dtype=np.float64),
                   np.array([arc.ngram for arc in arcs], dtype=np.float64), tuple(numbers))


class CopiedArcs(Sequence[Arc]):
    """Copies of a lattice's arcs between other nodes, with other n-gram scores.

    A copy of a node for each history makes very many, so an `Arc` is made when it is asked for.

    Args:
        source: the arcs that were copied, and their columns.
        origin: [arcs] which of them each is a copy of.
        start, end: [arcs] nodes.
        ngram: [arcs] nats.
    """

    __slots__ = ("_origin", "_source", "columns")

    def __init__(self, source: Sequence[Arc], source_columns: Columns, origin: np.ndarray,
                 start: np.ndarray, end: np.ndarray, ngram: np.ndarray) -> None:
        self._source, self._origin = source, origin
        self.columns = Columns(start, end, source_columns.label[origin],
                               source_columns.acoustic[origin], ngram, source_columns.labels)

    def __len__(self) -> int:
        return len(self._origin)

    @overload
    def __getitem__(self, index: int) -> Arc: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Arc, ...]: ...

    def __getitem__(self, index: int | slice) -> Arc | tuple[Arc, ...]:
        if isinstance(index, slice):
            return tuple(self[one] for one in range(*index.indices(len(self))))
        arc, columns = self._source[self._origin[index]], self.columns
        return Arc(int(columns.start[index]), int(columns.end[index]), arc.label, arc.acoustic,
                   float(columns.ngram[index]), arc.times)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


def as_arcs(arcs: Iterable[Arc]) -> tuple[Arc, ...] | CopiedArcs:
    """What a lattice keeps of them."""
    return arcs if isinstance(arcs, CopiedArcs) else tuple(arcs)
