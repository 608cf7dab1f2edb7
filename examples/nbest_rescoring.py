"""Rescoring the n-best lists of a lexicon decoder.

pip install torchaudio==2.11.0 flashlight-text==0.0.7;  python examples/nbest_rescoring.py
"""

from __future__ import annotations

import lmfusion
import torch
from comparison import Weights, compare
from emissions import emissions
from lmfusion.adapters.nbest import rescore
from torchaudio_decoder import decoder

# Chosen by bench/choose_weights.py.
WITHOUT, WITH = Weights(0.0, 0.0), Weights(1.0, 0.0)


def decode(scorer: lmfusion.LMFusionScorer | None, texts: list[str],
           weights: Weights | None = None) -> list[str]:
    """The best hypotheses, by the decoder alone or rescored, all lists in one call."""
    search = decoder(None, WITHOUT if scorer or weights is None else weights, nbest=400, beam=1500)
    nbests = []
    for text in texts:
        found = search(torch.from_numpy(emissions(text))[None])[0]
        nbests.append({"nbest": [{"text": " ".join(hypothesis.words), "score": hypothesis.score}
                                 for hypothesis in found]})
    if scorer is not None:
        weight, word_bonus = weights or WITH
        nbests = rescore(nbests, scorer, weight=weight, word_insertion_bonus=word_bonus)
    return [nbest["nbest"][0]["text"] for nbest in nbests]


if __name__ == "__main__":
    compare(decode)
