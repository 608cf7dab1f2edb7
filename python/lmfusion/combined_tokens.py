"""What a combination of models says of one candidate or of single tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmfusion import _core

Tokens = list[list[tuple[str, float]]]  # [texts][tokens] of (piece, log p)


@dataclass(frozen=True, slots=True)
class CombinedExplanation:
    """One candidate under every model.

    Attributes:
        parts: name -> log p of the candidate (nats) or a phrase's bonus, unweighted.
        weights: name -> weight.
        models: name -> the explanation of a language model, token by token.
        log_prob: the weighted sum of `parts`.
        score: the same with the bonus: what `score_continuations` gives.
    """

    parts: Mapping[str, float]
    weights: Mapping[str, float]
    models: Mapping[str, _core.Explanation]
    log_prob: float
    score: float


def summed_tokens(rows: Mapping[str, Tokens], weights: Mapping[str, float],
                  texts: Sequence[str]) -> Tokens:
    """The weighted sums, where all models split the texts into the same tokens.

    Raises:
        ValueError: two models split a text differently; names them and the index, not the text.
    """
    first = next(iter(rows))
    totals: Tokens = []
    for i in range(len(texts)):
        pieces = [piece for piece, _ in rows[first][i]]
        for name, mine in rows.items():
            if [piece for piece, _ in mine[i]] != pieces:
                raise ValueError(
                    f"texts[{i}]: the models {first!r} and {name!r} split it into different "
                    "tokens, so a token has no sum; word_log_probs sums words, and "
                    f"components[{name!r}].token_log_probs is one model's")
        totals.append([(piece, sum(weights[name] * rows[name][i][j][1] for name in rows))
                       for j, piece in enumerate(pieces)])
    return totals
