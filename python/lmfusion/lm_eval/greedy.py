"""Whether continuations are what greedy decoding would write, by as few tokens as settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lmfusion.scorer import LMFusionScorer

CERTAIN = math.log(0.5)  # a token above it is the likeliest
FIRST = 1024  # tokens asked first: vocabularies begin with frequent ones


class Greedy:
    """Of one scorer. What siblings have said after the same prefix is remembered.

    Args:
        scorer: whose vocabulary is compared with.
    """

    def __init__(self, scorer: LMFusionScorer) -> None:
        self._scorer = scorer
        self._best: dict[tuple[int, ...], float] = {}  # log p of some token after a prefix

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
        size = self._scorer.tokenizer.vocabulary_size
        for some in (range(min(FIRST, size)), range(min(FIRST, size), size)):
            rows = self._scorer.score_token_paths([[*prefix, other] for other in some],
                                                  [len(prefix)] * len(some))
            for other, (other_log_prob,) in zip(some, rows):
                if other_log_prob > log_prob or (other_log_prob == log_prob and other < token):
                    self.note([*prefix, other], [other_log_prob])
                    return False
        return True
