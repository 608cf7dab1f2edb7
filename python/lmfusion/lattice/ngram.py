"""A lattice with the scores of an n-gram model: its nodes become (node, words just before)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lmfusion.lattice.arcs import CopiedArcs
from lmfusion.lattice.labels import WordRule, word_of
from lmfusion.lattice.lattice import Lattice

Ngram = Callable[[tuple[str, ...], str], float]  # (words before, word) -> log p, nats


def with_ngram(lattice: Lattice, log_prob: Ngram, *, order: int = 3, words: WordRule = word_of,
               begin: str | None = "<s>", end: str | None = "</s>") -> Lattice:
    """The same paths with `ngram` taken from a model: every node once for each history before it.

    Labels without a word keep the history and have log p 0.

    Args:
        log_prob: log p (nats) of a word after at most `order - 1` words, the earliest first.
        order: of the model.
        words: label -> the words that the model knows; "" for none.
        begin, end: what the model calls the ends of a text; None: it has none.

    Raises:
        LatticeError: log p is NaN or +inf.
    """
    histories = _Histories(log_prob, order)
    first = histories.number((begin,) if begin is not None and order > 1 else ())
    columns = lattice.columns
    said = [tuple(words(label).split()) for label in columns.labels]
    entering: defaultdict[int, list[_Copies]] = defaultdict(list)
    origin, starts, ends, scores = ([np.zeros(0, dtype)] for dtype in (int, int, int, float))
    finals: dict[int, tuple[float, float]] = {}
    nodes = 0
    for node in lattice.order:
        came = entering.pop(node, [])
        here = np.unique(np.concatenate([copies.histories for copies in came])
                         if came else np.array([first]))
        for copies in came:
            count = copies.histories.size
            origin.append(np.full(count, copies.arc))
            starts.append(np.arange(copies.start, copies.start + count))
            ends.append(nodes + np.searchsorted(here, copies.histories))
            scores.append(copies.scores)
        if node in lattice.finals:
            acoustic, _ = lattice.finals[node]
            ending = (0.0,) * here.size if end is None else histories.after(here, (end,))[1]
            finals.update((nodes + place, (acoustic, float(score)))
                          for place, score in enumerate(ending))
        after: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for arc in lattice.topology.leaving_one(node):
            label = int(columns.label[arc])
            if label not in after:
                after[label] = histories.after(here, said[label])
            entering[int(columns.end[arc])].append(_Copies(arc, nodes, *after[label]))
        nodes += here.size
    arcs = CopiedArcs(lattice.arcs, columns, *map(np.concatenate, (origin, starts, ends, scores)))
    return Lattice(arcs, finals, 0, lattice.name)


class _Copies(NamedTuple):
    """The copies of an arc, one a history of the node where it starts."""

    arc: int
    start: int  # the first copy of that node
    histories: np.ndarray  # behind the arc
    scores: np.ndarray  # nats


class _Histories:
    """Words just before, by numbers; a word after one is asked for once."""

    def __init__(self, log_prob: Ngram, order: int) -> None:
        self._log_prob, self._kept = log_prob, order - 1
        self._numbers: dict[tuple[str, ...], int] = {}
        self._histories: list[tuple[str, ...]] = []
        self._after: dict[str, dict[int, tuple[int, float]]] = {}

    def number(self, history: tuple[str, ...]) -> int:
        """Of a history, a new one where it has none."""
        if history not in self._numbers:
            self._numbers[history] = len(self._histories)
            self._histories.append(history)
        return self._numbers[history]

    def after(self, histories: np.ndarray,
              words: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """[histories] what they are after these words, and the words' log p."""
        scores = np.zeros(histories.size)
        for word in words:
            known = self._after.setdefault(word, {})
            steps = [known.get(history) or self._ask(history, word, known)
                     for history in histories.tolist()]
            histories = np.array([after for after, _ in steps])
            scores = scores + np.array([score for _, score in steps])
        return histories, scores

    def _ask(self, number: int, word: str, known: dict[int, tuple[int, float]]
             ) -> tuple[int, float]:
        history = self._histories[number]
        after = (*history, word)[-self._kept:] if self._kept > 0 else ()
        known[number] = self.number(after), self._log_prob(history, word)
        return known[number]
