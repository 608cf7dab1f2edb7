"""The likeliest next tokens after a path, exactly, by as few tokens of the vocabulary as settle it.

Probabilities sum to 1, so what no token asked so far has is all that another one can have: often a
thousand tokens show that none of the other 48,000 can be likelier. No forward pass is added, since
all of them are children of one token of the tree; a token costs a row of the output layer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence

from lmfusion.scorer import LMFusionScorer

STEPS = (1024, 8192)  # tokens asked before the whole vocabulary, which begins with frequent ones
ROUNDING = 1e-3  # of a sum of probabilities, from above


def log_probs_until_certain(
        scorer: LMFusionScorer, path: Sequence[int], *, first: Sequence[int] = (),
        cache_namespace: str = "") -> Iterator[tuple[dict[int, float], float]]:
    """log p of ever more tokens after a path, and what no other token's log p exceeds.

    Args:
        path: token ids, at least one, with the start token that is wanted.
        first: token ids that may be likely.

    Yields:
        (log p in nats of all tokens asked so far by their ids, the bound in nats: -infinity where
        all are asked).
    """
    size = scorer.tokenizer.vocabulary_size
    known: dict[int, float] = {}
    for tokens in (first, *map(range, sorted({min(step, size) for step in (*STEPS, size)}))):
        some = [token for token in tokens if token not in known]
        if not some:
            continue
        rows = scorer.score_token_paths([[*path, token] for token in some], [len(path)] * len(some),
                                        cache_namespace=cache_namespace)
        known.update((token, log_prob) for token, (log_prob,) in zip(some, rows))
        left = 1 - math.fsum(map(math.exp, known.values())) + ROUNDING
        yield known, math.log(min(max(left, ROUNDING), 1)) if len(known) < size else -math.inf


def likeliest_tokens(scorer: LMFusionScorer, path: Sequence[int], count: int = 1, *,
                     cache_namespace: str = "") -> list[tuple[int, float]]:
    """(token id, log p in nats) of the likeliest tokens after a path, best first.

    Args:
        path: token ids, at least one, with the start token that is wanted.
        count: how many; equal ones by their ids.
    """
    best: list[tuple[int, float]] = []
    for known, bound in log_probs_until_certain(scorer, path, cache_namespace=cache_namespace):
        best = heapq.nsmallest(count, known.items(), key=lambda one: (-one[1], one[0]))
        if len(best) == count and (not best or best[-1][1] > bound):
            break
    return best
