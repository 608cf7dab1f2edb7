"""NeMo's state handles, driven by a small search of our own.

The toolkit itself is too heavy for an example.  python examples/nemo_fusion.py
"""

from __future__ import annotations

import lmfusion
import torch
from comparison import Weights, compare
from emissions import BLANK, SPACE, UNITS, emissions
from lmfusion.adapters.nemo import NeMoLM
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
    lm = NeMoLM(scorer, PIECES)
    handles: dict[Prefix, int] = {}  # a decoder keeps these beside its beams

    def rows(prefixes: list[Prefix]) -> list[list[float]]:
        if prefixes == [()]:  # a new utterance
            lm.reset()
            handles.clear()
            handles[()] = lm.get_init_states(1).item()
        scores, following = lm.advance(torch.tensor([handles[prefix] for prefix in prefixes]))
        for prefix, row in zip(prefixes, following.tolist()):
            handles.update({(*prefix, unit): handle for unit, handle in enumerate(row)})
        return scores.tolist()

    def ends(prefixes: list[Prefix]) -> list[float]:
        return lm.get_final(torch.tensor([handles[prefix] for prefix in prefixes])).tolist()

    return [search(log_probs, rows, ends, weights or WITH) for log_probs in spoken]


if __name__ == "__main__":
    compare(decode)
