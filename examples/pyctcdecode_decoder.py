"""pyctcdecode with lmfusion.

pip install pyctcdecode==0.5.0;  python examples/pyctcdecode_decoder.py
"""

from __future__ import annotations

import lmfusion
from emissions import UNITS, emissions, lexicon, sentences, word_error_rate
from pyctcdecode import Alphabet, BeamSearchDecoderCTC

from lmfusion.adapters.pyctcdecode import PyctcdecodeLM

UNKNOWN = -30.0  # only words of the lexicon were said


class LexiconOnly(PyctcdecodeLM):
    """The words of the lexicon and no language model, to compare with."""

    def __init__(self) -> None:
        super().__init__(None, unigrams=lexicon(), unk_score_offset=UNKNOWN)

    def score(self, prev_state: object, word: str, is_last_word: bool = False) -> tuple:
        return self.score_partial_token(word) if word not in self._words else 0.0, prev_state

    def get_start_state(self) -> None:
        return None


def decode(scorer: lmfusion.LMFusionScorer | None, texts: list[str]) -> list[str]:
    """What is understood of the emissions of `texts`; without a scorer, by the lexicon alone."""
    labels = ["", " ", *UNITS[2:]]
    if scorer is None:
        language_model = LexiconOnly()
    else:
        scorer.weight, scorer.word_insertion_bonus = 0.7, 3.0
        language_model = PyctcdecodeLM(scorer, unigrams=lexicon(), unk_score_offset=UNKNOWN)
    decoder = BeamSearchDecoderCTC(Alphabet.build_alphabet(labels), language_model)
    return [decoder.decode(emissions(text, seed=seed), beam_width=48, beam_prune_logp=-25.0,
                           token_min_logp=-8.0)
            for seed, text in enumerate(texts)]


if __name__ == "__main__":
    said = sentences(4)
    scorer_ = lmfusion.LMFusionScorer(lmfusion.default_model(), casing="sentence")
    print("word error rate without:", word_error_rate(said, decode(None, said)))
    print("word error rate with lmfusion:", word_error_rate(said, decode(scorer_, said)))
    print(scorer_.stats())
