"""The order of a lattice's nodes, and the arcs that leave each: whole levels at a time."""

from __future__ import annotations

import numpy as np


class Topology:
    """Of the nodes that can be reached from a start.

    Attributes:
        levels: nodes, each level's arcs lead to later levels only; without those that are on a
            cycle or behind one.
        cyclic: the lowest of these; None: there is no cycle.
    """

    __slots__ = ("_by_start", "_offsets", "cyclic", "levels")

    def __init__(self, start: int, starts: np.ndarray, ends: np.ndarray, nodes: int) -> None:
        self._by_start = np.argsort(starts, kind="stable")
        self._offsets = np.searchsorted(starts[self._by_start], np.arange(nodes + 1))
        reached = self._reached(start, ends, nodes)
        entering = np.bincount(ends[reached[starts]], minlength=nodes)
        self.levels: list[np.ndarray] = []
        level = np.array([start])[entering[[start]] == 0]
        while level.size:
            self.levels.append(level)
            found, counts = np.unique(ends[self.leaving(level)], return_counts=True)
            entering[found] -= counts
            level = found[entering[found] == 0]
        reached[np.concatenate([np.zeros(0, np.int64), *self.levels])] = False
        left = np.flatnonzero(reached)
        self.cyclic = int(left[0]) if left.size else None

    def leaving(self, nodes: np.ndarray) -> np.ndarray:
        """The arcs of these nodes, one node after another, each node's in their order."""
        counts = self.counts(nodes)
        behind = np.cumsum(counts)
        shift = np.repeat(self._offsets[nodes] - (behind - counts), counts)
        return self._by_start[shift + np.arange(shift.size)]

    def counts(self, nodes: np.ndarray) -> np.ndarray:
        """How many arcs leave each of these nodes."""
        return self._offsets[nodes + 1] - self._offsets[nodes]

    def leaving_one(self, node: int) -> list[int]:
        """The arcs of one node, in their order."""
        arcs: list[int] = self._by_start[self._offsets[node]:self._offsets[node + 1]].tolist()
        return arcs

    def _reached(self, start: int, ends: np.ndarray, nodes: int) -> np.ndarray:
        reached = np.zeros(nodes, dtype=bool)
        reached[start] = True
        level = np.array([start])
        while level.size:
            found = np.unique(ends[self.leaving(level)])
            level = found[~reached[found]]
            reached[level] = True
        return reached
