"""ESPnet: `BatchBeamSearch(scorers={"lm": ESPnetScorer(...), ...}, weights={"lm": 0.5, ...})`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lmfusion.adapters.pieces import Pieces, WordEndScorer
from lmfusion.scorer import LMFusionScorer

try:
    from espnet.nets.scorer_interface import BatchPartialScorerInterface
except ImportError:  # the search asks for the class, so it is only needed beside ESPnet
    BatchPartialScorerInterface = object


class ESPnetScorer(BatchPartialScorerInterface):
    """A partial scorer: one call of the model for all hypotheses of a step.

    ESPnet's transducer and time-synchronous searches, which know no partial scorers, call `score`
    and `batch_score`, as of its own language models.

    Every score is a function of the prefix, so states are None. Words are scored when they are
    complete (Note [Word ends] in pieces.py), in nats; the search's own weight is applied.

    Args:
        scorer: the scorer.
        pieces: ESPnet's `token_list` as text.
        eos: the unit that starts and ends a text (ESPnet: the last one).
        endings: how a text ends; () scores no end.
        open_words: score words while they are open too (Note [Open words]): for a search without a
            lexicon, as ESPnet's are.
    """

    def __init__(self, scorer: LMFusionScorer, pieces: Pieces, eos: int, *,
                 endings: Sequence[str] = (".", "?", "!"), open_words: bool = False) -> None:
        self._eos = eos
        self._scorer = WordEndScorer(scorer, pieces, endings, open_words=open_words)

    def init_state(self, x: torch.Tensor) -> None:
        return None

    def batch_init_state(self, x: torch.Tensor) -> None:
        return None

    def select_state(self, state: Any, i: int, new_id: int | None = None) -> None:
        return None

    def final_score(self, state: Any) -> float:
        return 0.0  # the end is scored with the unit `eos`

    def score(self, y: torch.Tensor, state: Any, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """y: [length] -> [vocabulary]."""
        return self.batch_score_partial(y[None], None, [state], x)[0][0], None

    def batch_score(self, ys: torch.Tensor, states: list[Any],
                    xs: torch.Tensor) -> tuple[torch.Tensor, list[None]]:
        """ys: [hypotheses, length] -> [hypotheses, vocabulary], a state for each."""
        return self.batch_score_partial(ys, None, states, xs)[0], [None] * len(ys)

    def score_partial(self, y: torch.Tensor, next_tokens: torch.Tensor, state: Any,
                      x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """y: [length], next_tokens: [units] -> [units]."""
        scores, _ = self.batch_score_partial(y[None], next_tokens[None], [state], x)
        return scores[0, next_tokens], None

    def batch_score_partial(self, ys: torch.Tensor, next_tokens: torch.Tensor | None,
                            states: list[Any], xs: torch.Tensor) -> tuple[torch.Tensor, None]:
        """ys: [hypotheses, length] -> [hypotheses, vocabulary], 0 beside `next_tokens`."""
        ends = next_tokens is None or bool((next_tokens == self._eos).any())
        rows = self._scorer.rows([y[1:] for y in ys.tolist()],  # without the start
                                 self._eos if ends else None)
        scores = torch.tensor(rows, dtype=torch.float32, device=ys.device)
        if next_tokens is None:
            return scores, None
        kept = torch.zeros_like(scores).scatter_(1, next_tokens, 1.0)
        return scores * kept, None
