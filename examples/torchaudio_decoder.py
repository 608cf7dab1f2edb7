"""torchaudio's (flashlight's) lexicon decoder with lmfusion.

pip install torchaudio==2.11.0 flashlight-text==0.0.7;  python examples/torchaudio_decoder.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import lmfusion
import torch
from emissions import BLANK, SPACE, UNITS, emissions, lexicon, sentences, word_error_rate
from torchaudio.models.decoder import CTCDecoder, ctc_decoder

from lmfusion.adapters.flashlight import FlashlightLM


def decoder(scorer: lmfusion.LMFusionScorer | None, nbest: int = 1,
            beam: int = 32) -> CTCDecoder:
    """A lexicon decoder over the characters of `emissions`."""
    words = [*lexicon(), "<unk>"]  # the dictionary: the index of a word is its line
    with tempfile.TemporaryDirectory() as folder:
        spellings, dictionary = Path(folder, "lexicon"), Path(folder, "words")
        spellings.write_text("".join(f"{word} {' '.join(word)} {SPACE}\n" for word in words[:-1]))
        dictionary.write_text("\n".join(words) + "\n")
        common = {"tokens": UNITS, "blank_token": BLANK, "sil_token": SPACE, "nbest": nbest,
                  "beam_size": beam, "beam_size_token": 12}
        if scorer is None:
            return ctc_decoder(str(spellings), lm=None, **common)
        return ctc_decoder(str(spellings), lm=FlashlightLM(scorer, words), lm_weight=0.7,
                           lm_dict=str(dictionary), word_score=3.0, **common)


def decode(scorer: lmfusion.LMFusionScorer | None, texts: list[str]) -> list[str]:
    """What is understood of the emissions of `texts`; without a scorer, by the lexicon alone."""
    search = decoder(scorer)
    heard = []
    for seed, text in enumerate(texts):
        best = search(torch.from_numpy(emissions(text, seed=seed))[None])[0]
        heard.append(" ".join(best[0].words) if best else "")
    return heard


if __name__ == "__main__":
    said = sentences(4)
    scorer_ = lmfusion.LMFusionScorer(lmfusion.default_model(), casing="sentence")
    print("word error rate without:", word_error_rate(said, decode(None, said)))
    print("word error rate with lmfusion:", word_error_rate(said, decode(scorer_, said)))
    print(scorer_.stats())
