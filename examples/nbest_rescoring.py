"""Rescoring the n-best lists of a lexicon decoder.  Needs torchaudio and flashlight-text."""

from __future__ import annotations

import lmfusion
import torch
from emissions import emissions, sentences, word_error_rate
from torchaudio_decoder import decoder

from lmfusion.adapters.nbest import rescore


def decode(scorer: lmfusion.LMFusionScorer | None, texts: list[str]) -> list[str]:
    """The best hypotheses, by the decoder alone or rescored, all lists in one call."""
    search = decoder(None, nbest=400, beam=1500)
    nbests = []
    for seed, text in enumerate(texts):
        found = search(torch.from_numpy(emissions(text, seed=seed))[None])[0]
        nbests.append({"nbest": [{"text": " ".join(hypothesis.words), "score": hypothesis.score}
                                 for hypothesis in found]})
    if scorer is not None:
        nbests = rescore(nbests, scorer, weight=0.7, word_insertion_bonus=3.0)
    return [nbest["nbest"][0]["text"] for nbest in nbests]


if __name__ == "__main__":
    said = sentences(6)
    scorer_ = lmfusion.LMFusionScorer(lmfusion.default_model(), casing="sentence")
    print("word error rate of the decoder:", word_error_rate(said, decode(None, said)))
    print("word error rate rescored:", word_error_rate(said, decode(scorer_, said)))
    print(scorer_.stats())
