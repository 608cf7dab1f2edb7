"""A lattice with the scores of an n-gram model: its nodes become (node, words just before)."""

from __future__ import annotations

from collections.abc import Callable

from lmfusion.lattice.labels import WordRule, word_of
from lmfusion.lattice.lattice import Arc, Lattice

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
        LatticeError: log p is NaN or above 0.
    """
    first = (begin,) if begin is not None and order > 1 else ()
    numbers: dict[tuple[int, tuple[str, ...]], int] = {(lattice.start, first): 0}
    known: dict[tuple[tuple[str, ...], str], float] = {}
    split = {label: words(label).split() for label in {arc.label for arc in lattice.arcs}}

    def score(history: tuple[str, ...], word: str) -> float:
        if (history, word) not in known:
            known[history, word] = log_prob(history, word)
        return known[history, word]

    arcs, finals = [], {}
    for (node, history), number in (open_nodes := list(numbers.items())):  # grows
        if node in lattice.finals:
            acoustic, _ = lattice.finals[node]
            finals[number] = (acoustic, score(history, end) if end is not None else 0.0)
        for index in lattice.leaving[node]:
            arc, after, total = lattice.arcs[index], history, 0.0
            for word in split[arc.label]:
                total += score(after, word)
                after = (*after, word)[-(order - 1):] if order > 1 else ()
            target = numbers.setdefault((arc.end, after), len(numbers))
            if target == len(open_nodes):
                open_nodes.append(((arc.end, after), target))
            arcs.append(Arc(number, target, arc.label, arc.acoustic, total, arc.times))
    return Lattice(arcs, finals, 0, lattice.name)
