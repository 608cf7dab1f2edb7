"""An n-gram model beside language models, read by the package kenlm."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from lmfusion.arguments import check_rows, check_texts
from lmfusion.phrases import Ragged


class NGram:
    """An n-gram model read by the package `kenlm`, in nats.

    Args:
        model: an ARPA or binary file, or a `kenlm.Model`.
        casing: what the model's words look like, from decoder text.

    Raises:
        ImportError: the package kenlm is not installed.
        OSError: the file cannot be read.
    """

    __slots__ = ("_casing", "_model", "_new_state")

    def __init__(self, model: str | os.PathLike[str] | Any, *,
                 casing: Callable[[str], str] = str.lower) -> None:
        import kenlm
        is_path = isinstance(model, (str, os.PathLike))
        self._model: Any = kenlm.Model(os.fspath(model)) if is_path else model
        self._new_state = kenlm.State
        self._casing = casing

    def __repr__(self) -> str:
        return f"NGram(order {self._model.order})"

    def log_probs(self, contexts: Sequence[str],
                  candidate_words: Sequence[Sequence[str]]) -> Ragged:
        """log p(word | context); a candidate of several words is their sum."""
        check_rows(contexts, candidate_words)
        rows = []
        for context, words in zip(contexts, candidate_words):
            state = self._state(self._casing(context).split()) if words else None
            rows.append([self._walk(state, self._casing(word).split())[1] for word in words])
        return rows

    def log_prob(self, context: str, word: str) -> float:
        """log p of one candidate: a `fallback` of `LMFusionScorer.score_continuations`."""
        return self.log_probs([context], [[word]])[0][0]

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        """log p of whole texts, without their end."""
        check_texts(texts, "texts")
        return [row[0] for row in self.log_probs([""] * len(texts), [[text] for text in texts])]

    def _state(self, words: list[str]) -> Any:
        state = self._new_state()
        recent = words[-(self._model.order - 1):] if self._model.order > 1 else []
        if len(recent) < len(words):  # all that the model looks at
            self._model.NullContextWrite(state)
        else:
            self._model.BeginSentenceWrite(state)
        return self._walk(state, recent)[0]

    def _walk(self, state: Any, words: Sequence[str]) -> tuple[Any, float]:
        log10 = 0.0
        for word in words:
            after = self._new_state()
            log10 += self._model.BaseScore(state, word, after)
            state = after
        return state, log10 * math.log(10)
