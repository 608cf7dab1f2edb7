"""The open hypotheses of a search: texts from the start of a lattice, each with its bound.

A hypothesis is one text, however many paths of the lattice say it: it holds every node where they
end, with the best score of getting there. So two paths that say the same are scored once, and none
that could end better is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmfusion.lattice.word_graph import Targets, WordGraph
from lmfusion.state import joined

Key = tuple[float, tuple[str, ...], bool]


@dataclass(slots=True, eq=False)
class Hypothesis:
    """The beginning of a text, or, where `ended`, a whole one.

    Attributes:
        words: the words.
        context, text: what the language model reads, without and with the last word.
        log_prob: of all words but the last while it is not `scored`, then of all; nats.
        nodes: where its paths end, with their best scores; empty where `ended`.
        best: the best score of a whole path that begins so, without the language model.
        bound: what no total of a path that begins so exceeds.
    """

    words: tuple[str, ...]
    context: str
    text: str
    log_prob: float
    nodes: Targets
    best: float
    bound: float
    scored: bool = False
    ended: bool = False

    @property
    def key(self) -> Key:
        """Sorts by bound, best first, then by words; a whole text stands before longer ones."""
        return -self.bound, self.words, not self.ended

    def __lt__(self, other: Hypothesis) -> bool:
        return self.key < other.key


def beginning(graph: WordGraph) -> Hypothesis:
    """The empty text."""
    best = graph.backward[graph.start]
    return Hypothesis((), "", "", 0.0, {graph.start: 0.0}, best, best, scored=True)


def successors(hypothesis: Hypothesis, graph: WordGraph, weight: float, bonus: float,
               join: str) -> list[Hypothesis]:
    """One more word, not yet scored, and the end, where the lattice has them.

    Args:
        hypothesis: scored.
        weight: of log p.
        bonus: of a word.
        join: how words join (docs/boundaries.md).
    """
    before = weight * hypothesis.log_prob if weight else 0.0
    words: dict[str, Targets] = {}
    end = -math.inf
    for node, score in hypothesis.nodes.items():
        following = graph.following(node)
        end = max(end, score + following.final)
        for word, targets in following.words.items():
            reached = words.setdefault(word, {})
            for target, more in targets.items():
                total = score + more + bonus
                if total > reached.get(target, -math.inf):
                    reached[target] = total
    found = []
    for word, reached in words.items():
        best = max(score + graph.backward[node] for node, score in reached.items())
        found.append(Hypothesis((*hypothesis.words, word), hypothesis.text,
                                joined(hypothesis.text, word, join), hypothesis.log_prob,
                                reached, best, before + best))
    if end > -math.inf:
        found.append(Hypothesis(hypothesis.words, hypothesis.context, hypothesis.text,
                                hypothesis.log_prob, {}, end, before + end, ended=True))
    return found
