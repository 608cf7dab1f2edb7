"""torchaudio's (flashlight's) lexicon decoder with lmfusion.

pip install torchaudio==2.11.0 flashlight-text==0.0.7;  python examples/torchaudio_decoder.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import lmfusion
import torch
from comparison import Weights, compare
from emissions import BLANK, SPACE, UNITS, emissions, lexicon
from lmfusion.adapters.flashlight import FlashlightLM
from torchaudio.models.decoder import CTCDecoder, ctc_decoder

# Chosen by bench/choose_weights.py.
WITHOUT, WITH = Weights(0.0, 3.0), Weights(1.0, 0.0)


def decoder(scorer: lmfusion.LMFusionScorer | None, weights: Weights, *, nbest: int = 1,
            beam: int = 32) -> CTCDecoder:
    """A lexicon decoder over the characters of `emissions`."""
    words = [*lexicon(), "<unk>"]  # the dictionary: the index of a word is its line
    with tempfile.TemporaryDirectory() as folder:
        spellings, dictionary = Path(folder, "lexicon"), Path(folder, "words")
        spellings.write_text("".join(f"{word} {' '.join(word)} {SPACE}\n" for word in words[:-1]))
        dictionary.write_text("\n".join(words) + "\n")
        common = {"tokens": UNITS, "blank_token": BLANK, "sil_token": SPACE, "nbest": nbest,
                  "beam_size": beam, "beam_size_token": 12, "word_score": weights.word_bonus}
        if scorer is None:
            return ctc_decoder(str(spellings), lm=None, **common)
        return ctc_decoder(str(spellings), lm=FlashlightLM(scorer, words), lm_dict=str(dictionary),
                           lm_weight=weights.language_model, **common)


def decode(scorer: lmfusion.LMFusionScorer | None, texts: list[str],
           weights: Weights | None = None) -> list[str]:
    """What is understood of the emissions of `texts`; without a scorer, by the lexicon alone."""
    search = decoder(scorer, weights or (WITHOUT if scorer is None else WITH))
    heard = []
    for text in texts:
        best = search(torch.from_numpy(emissions(text))[None])[0]
        heard.append(" ".join(best[0].words) if best else "")
    return heard


if __name__ == "__main__":
    compare(decode)
