"""The likeliest next tokens after a path, exactly: every token of the vocabulary is scored.

No forward pass is added, since all of them are children of one token of the tree; what it costs is
reading a row of the output layer for each.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from lmfusion.scorer import LMFusionScorer


def likeliest_tokens(scorer: LMFusionScorer, path: Sequence[int], count: int = 1, *,
                     cache_namespace: str = "") -> list[tuple[int, float]]:
    """(token id, log p in nats) of the likeliest tokens after a path, best first.

    Args:
        path: token ids, at least one, with the start token that is wanted.
        count: how many; equal ones by their ids.
    """
    every = range(scorer.tokenizer.vocabulary_size)
    rows = scorer.score_token_paths([[*path, token] for token in every], [len(path)] * len(every),
                                    cache_namespace=cache_namespace)
    best = heapq.nsmallest(count, every, key=lambda token: -rows[token][0])
    return [(token, rows[token][0]) for token in best]
