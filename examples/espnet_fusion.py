"""ESPnet's partial scorer, driven by a small search of our own.

The toolkit itself is too heavy for an example.  python examples/espnet_fusion.py
"""

from __future__ import annotations

import lmfusion
import torch
from comparison import Weights, compare
from emissions import BLANK, SPACE, UNITS, emissions
from lmfusion.adapters.espnet import ESPnetScorer
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
    lm = ESPnetScorer(scorer, PIECES, eos=EOS)

    def rows(prefixes: list[Prefix]) -> list[list[float]]:
        # A search step of ESPnet: hypotheses of one length, which start with eos.
        found = {}
        for size in {len(prefix) for prefix in prefixes}:
            same = [prefix for prefix in prefixes if len(prefix) == size]
            ys = torch.tensor([[EOS, *prefix] for prefix in same])
            scores, _ = lm.batch_score_partial(ys, None, [None] * len(same), None)
            found.update(zip(same, scores.tolist()))
        return [found[prefix] for prefix in prefixes]

    def ends(prefixes: list[Prefix]) -> list[float]:
        return [row[EOS] for row in rows(prefixes)]

    return [search(log_probs, rows, ends, weights or WITH) for log_probs in spoken]


if __name__ == "__main__":
    compare(decode)
