"""icefall's score_token, driven by a small search of our own.

The toolkit itself is too heavy for an example.  python examples/icefall_fusion.py
"""

from __future__ import annotations

import lmfusion
import torch
from comparison import Weights, compare
from emissions import BLANK, SPACE, UNITS, emissions
from lmfusion.adapters.icefall import IcefallLM
from lmfusion.adapters.pieces import Pieces
from unit_search import WITH, WITHOUT, Prefix, search

EOS = len(UNITS)  # the unit that starts and ends a text
PIECES = Pieces([*UNITS, "<eos>"], space=SPACE, special={UNITS.index(BLANK), EOS})


def decode(scorer: lmfusion.LMFusionScorer | None, texts: list[str],
           weights: Weights | None = None) -> list[str]:
    """What is understood of the emissions of `texts`; without a scorer, by the lexicon alone."""
    spoken = [emissions(text) for text in texts]
    if scorer is None:
        return [search(log_probs, None, None, weights or WITHOUT) for log_probs in spoken]
    lm = IcefallLM(scorer, PIECES, sos_id=EOS, eos_id=EOS)

    def rows(prefixes: list[Prefix]) -> list[list[float]]:
        tokens = [torch.tensor([EOS, *prefix]) for prefix in prefixes]
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        scores, _ = lm.score_token(padded, torch.tensor([len(row) for row in tokens]))
        return scores.tolist()

    def ends(prefixes: list[Prefix]) -> list[float]:
        return [row[EOS] for row in rows(prefixes)]

    return [search(log_probs, rows, ends, weights or WITH) for log_probs in spoken]


if __name__ == "__main__":
    compare(decode)
