"""icefall's score_token, driven by a small search of our own.

The toolkit itself is too heavy for an example.
"""

from __future__ import annotations

import lmfusion
import torch
from emissions import BLANK, SPACE, UNITS, emissions, sentences, word_error_rate
from unit_search import Prefix, search

from lmfusion.adapters.icefall import IcefallLM
from lmfusion.adapters.pieces import Pieces

EOS = len(UNITS)  # the unit that starts and ends a text
PIECES = Pieces([*UNITS, "<eos>"], space=SPACE, special={UNITS.index(BLANK), EOS})


def decode(scorer: lmfusion.LMFusionScorer | None, texts: list[str]) -> list[str]:
    """What is understood of the emissions of `texts`; without a scorer, by the lexicon alone."""
    spoken = [emissions(text, seed=seed) for seed, text in enumerate(texts)]
    if scorer is None:
        return [search(log_probs, None, None) for log_probs in spoken]
    lm = IcefallLM(scorer, PIECES, sos_id=EOS, eos_id=EOS)

    def rows(prefixes: list[Prefix]) -> list[list[float]]:
        tokens = [torch.tensor([EOS, *prefix]) for prefix in prefixes]
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        scores, _ = lm.score_token(padded, torch.tensor([len(row) for row in tokens]))
        return scores.tolist()

    def ends(prefixes: list[Prefix]) -> list[float]:
        return [row[EOS] for row in rows(prefixes)]

    return [search(log_probs, rows, ends) for log_probs in spoken]


if __name__ == "__main__":
    said = sentences(3)
    scorer_ = lmfusion.LMFusionScorer(lmfusion.default_model(), casing="sentence")
    print("word error rate without:", word_error_rate(said, decode(None, said)))
    print("word error rate with lmfusion:", word_error_rate(said, decode(scorer_, said)))
    print(scorer_.stats())
