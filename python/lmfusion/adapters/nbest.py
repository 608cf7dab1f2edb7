"""Rescoring of n-best lists: `lmfusion.nbest` by its older name."""

from __future__ import annotations

from lmfusion.nbest import Ranked, TextScorer, rank, rescore

__all__ = ["Ranked", "TextScorer", "rank", "rescore"]
