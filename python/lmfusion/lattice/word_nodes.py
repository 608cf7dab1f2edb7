"""Lattices whose words stand on nodes: an arc takes the word of the node where it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lmfusion.lattice.labels import word_of
from lmfusion.lattice.lattice import Arc, Lattice


def lattice_of_word_nodes(words: Sequence[str], arcs: Iterable[Arc],
                          finals: Mapping[int, tuple[float, float]], start: int,
                          name: str | None) -> Lattice:
    """Gives every arc without a label the word of the node where it ends.

    A word on the start node gets an arc of its own, from a node before it.

    Args:
        words: [nodes], "" where a node has none.
    """
    labelled = [arc if arc.label else
                Arc(arc.start, arc.end, words[arc.end], arc.acoustic, arc.ngram, arc.times)
                for arc in arcs]
    if word_of(words[start]):
        labelled.append(Arc(len(words), start, words[start]))
        start = len(words)
    return Lattice(labelled, finals, start, name)
