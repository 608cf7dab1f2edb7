"""What every lattice format is read into: nodes, arcs with words and scores, a start, ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lmfusion.errors import LatticeError

GAPS = 100  # numbers of nodes for each arc, at most: what every node takes room for


@dataclass(frozen=True, slots=True)
class Arc:
    """One arc of a lattice. Log-probabilities in nats; -inf: the arc is never taken."""

    start: int  # node
    end: int  # node
    label: str = ""  # as the file writes it; "" is epsilon
    acoustic: float = 0.0
    ngram: float = 0.0  # of the recogniser's own language model
    times: tuple[float, float] | None = None  # seconds from the beginning of the recording


@dataclass(frozen=True, slots=True)
class Lattice:
    """A word lattice: a directed graph without cycles, nodes numbered from 0.

    Args:
        arcs: in any order.
        finals: node -> (acoustic, n-gram) log-probability (nats) of ending there.
        start: the node where every path begins.
        name: of the utterance, for messages.

    Raises:
        LatticeError: a cycle, a score that is NaN or +inf, a node that is no number from 0 on or
            one far beyond the number of arcs, or no path from the start to an end.
    """

    arcs: tuple[Arc, ...]
    finals: Mapping[int, tuple[float, float]]
    start: int = 0
    name: str | None = None
    leaving: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    order: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __init__(self, arcs: Iterable[Arc], finals: Mapping[int, tuple[float, float]],
                 start: int = 0, name: str | None = None) -> None:
        for attribute, value in (("arcs", tuple(arcs)), ("finals", dict(finals)),
                                 ("start", start), ("name", name)):
            object.__setattr__(self, attribute, value)
        self._check_numbers()
        leaving: list[list[int]] = [[] for _ in range(self._node_count())]
        for index, arc in enumerate(self.arcs):
            leaving[arc.start].append(index)
        object.__setattr__(self, "leaving", tuple(map(tuple, leaving)))
        object.__setattr__(self, "order", self._topological_order())
        if not any(node in self.finals for node in self.order):
            raise LatticeError(f"{self.title}: no path leads from the start, node {start}, to an "
                               "end" if self.finals else f"{self.title} has no final node")

    @property
    def title(self) -> str:
        """For messages."""
        return "the lattice" if self.name is None else f"the lattice {self.name!r}"

    def _node_count(self) -> int:
        ends = (node for arc in self.arcs for node in (arc.start, arc.end))
        last = max((self.start, *self.finals, *ends))
        if last > GAPS * (len(self.arcs) + len(self.finals) + 10):
            raise LatticeError(f"{self.title} has a node {last}, but only {len(self.arcs)} arcs; "
                               "nodes are numbered from 0 on, with few numbers left out")
        return 1 + last

    def _check_numbers(self) -> None:
        for index, arc in enumerate(self.arcs):
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

    def _topological_order(self) -> tuple[int, ...]:
        """The nodes that can be reached, each before those its arcs lead to."""
        reached = {self.start}
        stack = [self.start]
        entering = [0] * len(self.leaving)
        while stack:
            for index in self.leaving[stack.pop()]:
                end = self.arcs[index].end
                entering[end] += 1
                if end not in reached:
                    reached.add(end)
                    stack.append(end)
        order = [] if entering[self.start] else [self.start]
        for node in order:  # grows
            for index in self.leaving[node]:
                end = self.arcs[index].end
                entering[end] -= 1
                if not entering[end]:
                    order.append(end)
        if len(order) < len(reached):
            cycle = min(reached - set(order))
            raise LatticeError(f"{self.title} has a cycle that node {cycle} is on or behind; its "
                               "paths would never end")
        return tuple(order)


def _check_score(score: float, what: str) -> None:
    if math.isnan(score) or score == math.inf:
        raise LatticeError(f"{what} is {score}; a log-probability expected, finite or -inf")
