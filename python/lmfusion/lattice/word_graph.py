"""A lattice as the search reads it: words only, one score an arc, the best score to every end.

The backward score of a node is the best score of a path from it to an end, the word bonus included.
Those of all nodes are computed at first, level by level; what words follow a node only where a
search comes to it: its arcs without a word are followed, with the best score of the arcs passed on
the way, and labels of several words become several arcs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lmfusion.errors import LatticeError
from lmfusion.lattice.labels import WordRule
from lmfusion.lattice.lattice import Lattice

Targets = dict[int, float]  # node -> score


@dataclass(frozen=True, slots=True)
class Scales:
    """score = acoustic_scale * acoustic + ngram_weight * ngram, of an arc or an end."""

    acoustic_scale: float = 1.0
    ngram_weight: float = 1.0
    word_insertion_bonus: float = 0.0

    def score(self, acoustic: float, ngram: float) -> float:
        """Nats; a part that does not count is 0 even where it is -inf."""
        parts = ((self.acoustic_scale, acoustic), (self.ngram_weight, ngram))
        return sum(scale * part for scale, part in parts if scale)

    def scores(self, acoustic: np.ndarray, ngram: np.ndarray) -> np.ndarray:
        """The same of many."""
        parts = ((self.acoustic_scale, acoustic), (self.ngram_weight, ngram))
        return np.asarray(sum((scale * part for scale, part in parts if scale),
                              np.zeros(acoustic.shape)))


class Following(NamedTuple):
    """What can come next at a node."""

    words: dict[str, Targets]  # word -> nodes behind it, with the best score of getting there
    final: float  # the best score of ending without another word; -inf where there is none


class WordGraph:
    """What follows each node.

    Attributes:
        backward: [nodes] the best score from the node to an end; -inf where none is reached.
        start: the first node.
    """

    __slots__ = ("_bonus", "_finals", "_following", "_lattice", "_scores", "_words", "backward",
                 "start")

    def __init__(self, lattice: Lattice, scales: Scales, rule: WordRule) -> None:
        self.start = lattice.start
        self._lattice, self._bonus = lattice, scales.word_insertion_bonus
        self._words = [rule(label).split() for label in lattice.columns.labels]
        self._scores = scales.scores(lattice.columns.acoustic, lattice.columns.ngram)
        self._finals = {node: scales.score(*final) for node, final in lattice.finals.items()}
        self._following: dict[int, Following] = {}
        self.backward: list[float] = self._backward().tolist()
        if self.backward[self.start] == -math.inf:
            raise LatticeError(f"{lattice.title}: every path has a score of -inf")

    def following(self, node: int) -> Following:
        """What can come next; computed once."""
        waiting = [node]
        while node not in self._following:
            at = waiting[-1]
            passed = [end for arc, end in self._arcs(at) if not self._words_of(arc)
                      and end not in self._following]
            if passed:
                waiting += passed
            else:
                self._following[at] = self._look(waiting.pop())
        return self._following[node]

    def _backward(self) -> np.ndarray:
        columns, topology = self._lattice.columns, self._lattice.topology
        lengths = np.array([len(words) for words in self._words], dtype=np.int64)
        scores = self._scores + self._bonus * lengths[columns.label]
        nodes = [columns.start.max(initial=self.start), columns.end.max(initial=0),
                 *self._finals]
        backward = np.full(1 + int(max(nodes)), -math.inf)
        for node, score in self._finals.items():
            backward[node] = score
        for level in reversed(topology.levels):
            level = level[topology.counts(level) > 0]
            if level.size:
                arcs = topology.leaving(level)
                begins = np.cumsum(topology.counts(level)) - topology.counts(level)
                best = np.maximum.reduceat(scores[arcs] + backward[columns.end[arcs]], begins)
                backward[level] = np.maximum(backward[level], best)
        return backward

    def _words_of(self, arc: int) -> list[str]:
        return self._words[self._lattice.columns.label[arc]]

    def _arcs(self, node: int) -> list[tuple[int, int]]:
        """Those that lead to an end, and where each leads."""
        found = []
        for arc in self._lattice.topology.leaving_one(node):
            end = int(self._lattice.columns.end[arc])
            if self._scores[arc] + self.backward[end] > -math.inf:
                found.append((arc, end))
        return found

    def _look(self, node: int) -> Following:
        """Whatever its arcs without a word lead to is known."""
        next_words: dict[str, Targets] = {}
        final = self._finals.get(node, -math.inf)
        for arc, end in self._arcs(node):
            words, score = self._words_of(arc), float(self._scores[arc])
            if words:
                _keep(next_words.setdefault(words[0], {}), self._inside(words[1:], end), score)
                continue
            behind = self._following[end]
            final = max(final, score + behind.final)
            for word, targets in behind.words.items():
                own = next_words.setdefault(word, {})
                for target, more in targets.items():
                    _keep(own, target, score + more)
        return Following(next_words, final)

    def _inside(self, words: list[str], end: int) -> int:
        """A node of this graph's own, after which these words lead to `end`."""
        for word in reversed(words):
            self.backward.append(self._bonus + self.backward[end])
            self._following[len(self.backward) - 1] = Following({word: {end: 0.0}}, -math.inf)
            end = len(self.backward) - 1
        return end


def _keep(targets: Targets, target: int, score: float) -> None:
    if score > targets.get(target, -math.inf):
        targets[target] = score
