"""pyctcdecode with lmfusion.

pip install pyctcdecode==0.5.0;  python examples/pyctcdecode_decoder.py
"""

from __future__ import annotations

import lmfusion
from comparison import Weights, compare
from emissions import UNITS, emissions, lexicon
from lmfusion.adapters.pyctcdecode import PyctcdecodeLM
from pyctcdecode import Alphabet, BeamSearchDecoderCTC

# Chosen by bench/choose_weights.py.
WITHOUT, WITH = Weights(0.0, 3.0), Weights(0.7, 6.0)
UNKNOWN = -30.0  # only words of the lexicon were said


class LexiconOnly(PyctcdecodeLM):
    """The words of the lexicon and no language model, to compare with."""

    def __init__(self, word_bonus: float) -> None:
        super().__init__(None, unigrams=lexicon(), unk_score_offset=UNKNOWN)
        self._word_bonus = word_bonus

    def score(self, prev_state: object, word: str, is_last_word: bool = False) -> tuple:
        score = self._word_bonus if word else 0.0
        return score + (0.0 if word in self._words else self._unknown(word)), prev_state

    def get_start_state(self) -> None:
        return None


def decode(scorer: lmfusion.LMFusionScorer | None, texts: list[str],
           weights: Weights | None = None) -> list[str]:
    """What is understood of the emissions of `texts`; without a scorer, by the lexicon alone."""
    labels = ["", " ", *UNITS[2:]]
    if scorer is None:
        language_model = LexiconOnly((weights or WITHOUT).word_bonus)
    else:
        scorer.weight, scorer.word_insertion_bonus = weights or WITH
        language_model = PyctcdecodeLM(scorer, unigrams=lexicon(), unk_score_offset=UNKNOWN)
    decoder = BeamSearchDecoderCTC(Alphabet.build_alphabet(labels), language_model)
    return [decoder.decode(emissions(text), beam_width=48, beam_prune_logp=-25.0,
                           token_min_logp=-8.0)
            for text in texts]


if __name__ == "__main__":
    compare(decode)
