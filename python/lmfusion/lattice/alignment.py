"""The arcs of a lattice that say given words with the best score."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from lmfusion.lattice.labels import WordRule
from lmfusion.lattice.lattice import Arc, Lattice
from lmfusion.lattice.word_graph import Scales

Places = dict[int, tuple[float, Arc | None]]  # words said -> best score, and the last arc


class Alignment:
    """Finds arcs of one lattice; only nodes that the words lead to are looked at."""

    __slots__ = ("_lattice", "_order", "_position", "_scales", "_spoken")

    def __init__(self, lattice: Lattice, scales: Scales, rule: WordRule) -> None:
        self._lattice, self._scales = lattice, scales
        self._order = lattice.order
        self._position = {node: place for place, node in enumerate(self._order)}
        self._spoken = {label: tuple(rule(label).split()) for label in lattice.columns.labels}

    def arcs_of(self, words: Sequence[str]) -> tuple[list[Arc], int]:
        """(arcs from the start to an end, that end); of equal scores, the arcs that stand first.

        Raises:
            ValueError: no path of the lattice says these words.
        """
        best = self._forward(tuple(words))
        finals = self._lattice.finals
        ends = [(places[len(words)][0] + self._scales.score(*finals[node]), -node)
                for node, places in best.items() if node in finals and len(words) in places]
        if not ends:
            raise ValueError(f"{self._lattice.title} has no path of these {len(words)} words")
        node = end = -max(ends)[1]
        count, arcs = len(words), list[Arc]()
        while (arc := best[node][count][1]) is not None:
            arcs.append(arc)
            node, count = arc.start, count - len(self._spoken[arc.label])
        return arcs[::-1], end

    def _forward(self, words: tuple[str, ...]) -> dict[int, Places]:
        """The best way to every node that some first ones of the words lead to."""
        lattice = self._lattice
        best: dict[int, Places] = {lattice.start: {0: (0.0, None)}}
        waiting = [self._position[lattice.start]]
        while waiting:
            node = self._order[heapq.heappop(waiting)]
            for index in lattice.topology.leaving_one(node):
                arc = lattice.arcs[index]
                said = self._spoken[arc.label]
                for count, (before, _) in best[node].items():
                    if words[count:count + len(said)] != said:
                        continue
                    total = before + self._scales.score(arc.acoustic, arc.ngram)
                    if arc.end not in best:
                        best[arc.end] = {}
                        heapq.heappush(waiting, self._position[arc.end])
                    kept = best[arc.end].get(count + len(said), (-math.inf, None))
                    if total > kept[0]:
                        best[arc.end][count + len(said)] = (total, arc)
        return best
