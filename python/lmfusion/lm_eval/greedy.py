"""Whether continuations are what greedy decoding would write, by as few tokens as settle it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from lmfusion.likeliest import log_probs_until_certain
from lmfusion.scorer import LMFusionScorer

CERTAIN = math.log(0.5)  # a token above it is the likeliest
FREQUENT = 256  # tokens of the requests that are asked before others


class Greedy:
    """Of one scorer. What siblings have said after the same prefix is remembered.

    Args:
        scorer: whose vocabulary is compared with.
        paths: of all requests: what they say often is likely to be likeliest.
    """

    def __init__(self, scorer: LMFusionScorer, paths: Iterable[Sequence[int]] = ()) -> None:
        self._scorer = scorer
        self._best: dict[tuple[int, ...], float] = {}  # log p of some token after a prefix
        counts = Counter(token for path in paths for token in path)
        self._frequent = [token for token, _ in counts.most_common(FREQUENT)]

    def note(self, path: Sequence[int], log_probs: Sequence[float]) -> None:
        """Remembers log p of the last tokens of a path."""
        begin = len(path) - len(log_probs)
        for end, log_prob in enumerate(log_probs, begin):
            prefix = tuple(path[:end])
            self._best[prefix] = max(log_prob, self._best.get(prefix, -math.inf))

    def holds(self, path: Sequence[int], log_probs: Sequence[float]) -> bool:
        """Whether each of the last tokens of a path is the likeliest at its place.

        Of equally likely tokens, the one with the smallest id is.
        """
        begin = len(path) - len(log_probs)
        # What is known for certain first, since it may settle all.
        if any(self._best.get(tuple(path[:end]), -math.inf) > log_prob
               for end, log_prob in enumerate(log_probs, begin)):
            return False
        return all(log_prob > CERTAIN or self._is_best(path[:end], path[end], log_prob)
                   for end, log_prob in enumerate(log_probs, begin))

    def _is_best(self, prefix: Sequence[int], token: int, log_prob: float) -> bool:
        for known, bound in log_probs_until_certain(self._scorer, prefix, first=self._frequent):
            other, highest = max(known.items(), key=lambda one: (one[1], -one[0]))
            self.note([*prefix, other], [highest])
            if highest > log_prob or (highest == log_prob and other < token):
                return False
            if log_prob > bound:
                return True
        return True
