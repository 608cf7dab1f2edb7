"""icefall: pass an `IcefallLM` where a decoding function takes an `LmScorer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lmfusion.adapters.pieces import Pieces, WordEndScorer
from lmfusion.scorer import LMFusionScorer


class IcefallLM:
    """`score_token` of icefall's transformer language models: whole prefixes in, no state.

    Words are scored when they are complete (Note [Word ends] in pieces.py), so the rows are not
    distributions: they are what `lm_scale` times a row adds to each hypothesis.

    Args:
        scorer: the scorer.
        pieces: the units of the BPE model as text, start and blank among its `special`.
        lm_scale: read by the decoding functions.
        sos_id, eos_id: the units that start and end a text.
        endings: how a text ends; () scores no end.
        open_words: score words while they are open too (Note [Open words]): for a search without a
            lexicon, as icefall's beam searches are.
    """

    lm_type = "transformer"  # decoding functions then give whole prefixes

    def __init__(self, scorer: LMFusionScorer, pieces: Pieces, *, lm_scale: float = 0.3,
                 sos_id: int = 1, eos_id: int = 1,
                 endings: Sequence[str] = (".", "?", "!"), open_words: bool = False) -> None:
        self.lm_scale, self.sos_id, self.eos_id = lm_scale, sos_id, eos_id
        self._scorer = WordEndScorer(scorer, pieces, endings, open_words=open_words)

    def score_token(self, x: torch.Tensor, x_lens: torch.Tensor,
                    state: Any = None) -> tuple[torch.Tensor, None]:
        """x: [hypotheses, longest], padded; x_lens: [hypotheses] -> [hypotheses, vocabulary]."""
        prefixes = [row[:length] for row, length in zip(x.tolist(), x_lens.tolist())]
        rows = self._scorer.rows(prefixes, self.eos_id)
        return torch.tensor(rows, dtype=torch.float32, device=x.device), None
