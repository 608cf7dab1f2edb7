"""A lattice as the search reads it: words only, one score an arc, the best score to every end.

Arcs without a word are followed beforehand: a node's arcs are all words that can come next, with
the best score of the arcs passed on the way. Labels of several words become several arcs. The
backward score of a node is the best score of a path from it to an end, the word bonus included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


class WordGraph:
    """What follows each node.

    Attributes:
        next_words: [nodes] of word -> nodes behind it, with the best score of getting there.
        final: [nodes] the best score of ending without another word; -inf where there is none.
        backward: [nodes] the best score from the node to an end; -inf where none is reached.
        start: the first node.
    """

    __slots__ = ("backward", "final", "next_words", "start")

    def __init__(self, lattice: Lattice, scales: Scales, rule: WordRule) -> None:
        self.start = lattice.start
        self.next_words: list[dict[str, Targets]] = [{} for _ in lattice.leaving]
        self.final = [-math.inf] * len(lattice.leaving)
        self.backward = [-math.inf] * len(lattice.leaving)
        words = {label: rule(label).split() for label in {arc.label for arc in lattice.arcs}}
        for node in reversed(lattice.order):
            if node in lattice.finals:
                self.final[node] = scales.score(*lattice.finals[node])
            for index in lattice.leaving[node]:
                arc = lattice.arcs[index]
                score = scales.score(arc.acoustic, arc.ngram)
                self._add(node, words[arc.label], arc.end, score, scales.word_insertion_bonus)
            self._look_forward(node, scales.word_insertion_bonus)
        if self.backward[self.start] == -math.inf:
            raise LatticeError(f"{lattice.title}: every path has a score of -inf")

    def _add(self, node: int, words: list[str], end: int, score: float, bonus: float) -> None:
        """One arc; `end` is done."""
        if score + self.backward[end] == -math.inf:
            return
        for word in reversed(words[1:]):
            self.next_words.append({word: {end: 0.0}})
            self.final.append(-math.inf)
            self.backward.append(bonus + self.backward[end])
            end = len(self.backward) - 1
        if words:
            _keep(self.next_words[node].setdefault(words[0], {}), end, score)
            return
        self.final[node] = max(self.final[node], score + self.final[end])
        for word, targets in self.next_words[end].items():
            own = self.next_words[node].setdefault(word, {})
            for target, more in targets.items():
                _keep(own, target, score + more)

    def _look_forward(self, node: int, bonus: float) -> None:
        ways = (score + bonus + self.backward[target]
                for targets in self.next_words[node].values() for target, score in targets.items())
        self.backward[node] = max(self.final[node], *ways, -math.inf)


def _keep(targets: Targets, target: int, score: float) -> None:
    if score > targets.get(target, -math.inf):
        targets[target] = score
