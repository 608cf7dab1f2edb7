"""What every lattice format is read into: nodes, arcs with words and scores, a start, ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmfusion.errors import LatticeError
from lmfusion.lattice.arcs import Arc, Columns, CopiedArcs, as_arcs
from lmfusion.lattice.topology import Topology

__all__ = ["Arc", "Lattice"]

GAPS = 100  # numbers of nodes for each arc, at most: what every node takes room for


@dataclass(frozen=True, slots=True)
class Lattice:
    """A word lattice: a directed graph without cycles, nodes numbered from 0.

    Args:
        arcs: in any order.
        finals: node -> (acoustic, n-gram) log-probability (nats) of ending there.
        start: the node where every path begins.
        name: of the utterance, for messages.

    Attributes:
        columns: the arcs as columns.
        topology: the order of its nodes.

    Raises:
        LatticeError: a cycle, a score that is NaN or +inf, a node that is no number from 0 on or
            one far beyond the number of arcs, or no path from the start to an end.
    """

    arcs: Sequence[Arc]
    finals: Mapping[int, tuple[float, float]]
    start: int = 0
    name: str | None = None
    columns: Columns = field(init=False, repr=False, compare=False)
    topology: Topology = field(init=False, repr=False, compare=False)

    def __init__(self, arcs: Iterable[Arc], finals: Mapping[int, tuple[float, float]],
                 start: int = 0, name: str | None = None) -> None:
        for attribute, value in (("arcs", as_arcs(arcs)), ("finals", dict(finals)),
                                 ("start", start), ("name", name)):
            object.__setattr__(self, attribute, value)
        self._check_numbers()
        nodes = self._node_count()
        columns = (self.arcs.columns if isinstance(self.arcs, CopiedArcs)
                   else Columns.of(self.arcs))
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "topology", Topology(start, columns.start, columns.end, nodes))
        if self.topology.cyclic is not None:
            raise LatticeError(f"{self.title} has a cycle that node {self.topology.cyclic} is on "
                               "or behind; its paths would never end")
        if not set(self.finals).intersection(self.order):
            raise LatticeError(f"{self.title}: no path leads from the start, node {start}, to an "
                               "end" if self.finals else f"{self.title} has no final node")

    @property
    def title(self) -> str:
        """For messages."""
        return "the lattice" if self.name is None else f"the lattice {self.name!r}"

    @property
    def order(self) -> list[int]:
        """The nodes that can be reached, each before those its arcs lead to."""
        found: list[int] = np.concatenate(self.topology.levels).tolist()
        return found

    def _node_count(self) -> int:
        if isinstance(self.arcs, CopiedArcs):
            ends = [int(self.arcs.columns.end.max(initial=0))]
        else:
            ends = [node for arc in self.arcs for node in (arc.start, arc.end)]
        last = max((self.start, *self.finals, *ends))
        if last > GAPS * (len(self.arcs) + len(self.finals) + 10):
            raise LatticeError(f"{self.title} has a node {last}, but only {len(self.arcs)} arcs; "
                               "nodes are numbered from 0 on, with few numbers left out")
        return 1 + last

    def _check_numbers(self) -> None:
        for index in self._to_check():
            arc = self.arcs[index]
            where = f"{self.title}, arc {index} from node {arc.start} to node {arc.end}"
            if min(arc.start, arc.end) < 0:
                raise LatticeError(f"{where}: nodes are numbered from 0")
            _check_score(arc.acoustic, f"{where}: the acoustic score")
            _check_score(arc.ngram, f"{where}: the n-gram score")
        for node, (acoustic, ngram) in self.finals.items():
            if min(node, self.start) < 0:
                raise LatticeError(f"{self.title}, final node {node}, start {self.start}: nodes "
                                   "are numbered from 0")
            _check_score(acoustic, f"{self.title}, final node {node}: the acoustic score")
            _check_score(ngram, f"{self.title}, final node {node}: the n-gram score")

    def _to_check(self) -> Iterable[int]:
        """Arcs; of copies those whose new scores are wrong."""
        if isinstance(self.arcs, CopiedArcs):
            ngram = self.arcs.columns.ngram
            return np.flatnonzero(np.isnan(ngram) | (ngram == math.inf)).tolist()
        return range(len(self.arcs))


def _check_score(score: float, what: str) -> None:
    if math.isnan(score) or score == math.inf:
        raise LatticeError(f"{what} is {score}; a log-probability expected, finite or -inf")
