"""ESPnet's own `BatchBeamSearch`, with `lmfusion.adapters.espnet`.

It goes letter by letter over CTC prefix scores (`CTCPrefixScorer`), as with a hybrid model whose
attention weighs nothing.
"""

from __future__ import annotations

import torch
from emissions import BLANK, SPACE, UNITS
from espnet.nets.batch_beam_search import BatchBeamSearch
from espnet.nets.scorers.ctc import CTCPrefixScorer
from lmfusion import LMFusionScorer
from lmfusion.adapters.espnet import ESPnetScorer
from lmfusion.adapters.pieces import Pieces
from trial import LISTED, Trial

EOS = len(UNITS)
TOKENS = [*UNITS, "<sos/eos>"]
PIECES = Pieces(TOKENS, space=SPACE, special={UNITS.index(BLANK), EOS})
WEIGHT = 0.5  # of log p; no other was tried
BEAM = 8


class Emissions(torch.nn.Module):
    """In place of the toolkit's `CTC`: its input is the emissions."""

    def log_softmax(self, hs: torch.Tensor) -> torch.Tensor:
        """[1, frames, units] -> [1, frames, units and eos]."""
        return torch.nn.functional.pad(hs, (0, 1), value=-1e4)


def text_of(yseq: torch.Tensor) -> str:
    return " ".join("".join(PIECES.split(yseq.tolist(), "space")).split())


def main() -> None:
    trial = Trial("espnet", __doc__)
    weight = WEIGHT if trial.weight is None else trial.weight
    handed: list[tuple[str, float]] = []

    def decode(scorer: LMFusionScorer | None) -> list[str]:
        scorers = {"ctc": CTCPrefixScorer(Emissions(), EOS)}
        if scorer is not None:
            scorers["lm"] = ESPnetScorer(scorer, PIECES, EOS, open_words=True)
        search = BatchBeamSearch(scorers, {"ctc": 1.0, "lm": weight}, beam_size=BEAM,
                                 vocab_size=len(TOKENS), sos=EOS, eos=EOS, token_list=TOKENS)
        heard = []
        for log_probs in trial.spoken:
            found = search(log_probs)
            heard.append(text_of(found[0].yseq))
            if scorer is not None:
                handed.extend((text_of(each.yseq), float(each.scores["lm"]))
                              for each in found[:LISTED])
        return heard

    trial.measure("BatchBeamSearch over CTCPrefixScorer", decode, lambda: handed)
    trial.end()


if __name__ == "__main__":
    main()
