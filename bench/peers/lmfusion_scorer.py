"""lmfusion through its Python package: texts in, so casing and tokenizing are in its time."""

from __future__ import annotations

import math
from pathlib import Path

import lmfusion

from peers.calls import Call


class Scorer:
    """One mode and compute type of lmfusion."""

    def __init__(self, bundle: Path, *, mode: str, compute: str, casing: str = "none",
                 **options: object) -> None:
        self._scorer = lmfusion.LMFusionScorer(str(bundle), weight=1.0, mode=mode, compute=compute,
                                               casing=casing, **options)

    @property
    def tokens_computed(self) -> int:
        return self._scorer.stats().tokens_computed

    @property
    def forwards(self) -> int:
        return self._scorer.stats().forwards

    @property
    def weight_bytes(self) -> int:
        return self._scorer.stats().weight_bytes

    def new_utterance(self) -> None:
        """A cache that starts empty for every utterance."""
        self._scorer.clear_cache()

    def score(self, call: Call) -> list[float]:
        """[candidates] log p, nats."""
        request = call.request
        if "contexts" in request:
            rows = self._scorer.log_probs(request["contexts"], request["candidate_words"])
        elif "endings" in request:
            rows = self._scorer.score_endings(request["texts"], request["endings"])
        else:
            rows = [self._scorer.score_texts(request["texts"],
                                             eos=bool(request.get("eos", False)))]
        return [value for row in rows for value in row]


class BestOnly(Scorer):
    """Which text of a request is the best, and its log p; the others get -inf.

    A request may have "base_scores", which count beside log p: a recogniser's over the weight.
    """

    def score(self, call: Call) -> list[float]:
        texts = call.request.get("texts")
        if not texts or "endings" in call.request:
            raise ValueError("it answers which text of a list is best; these requests ask for "
                             "words or endings")
        base = call.request.get("base_scores")
        [found] = self._scorer.best([texts], None if base is None else [base], weight=1.0,
                                    word_insertion_bonus=0.0,
                                    eos=bool(call.request.get("eos", False)))
        best = found.best[0]
        return [best.log_prob if index == best.index else -math.inf
                for index in range(len(texts))]
