"""n-best lists of every common toolkit, read by their own rules, ranked, written back.

    ranked = lmfusion.nbest.rescore(decoder.decode_beams(logits), scorer, weight=0.5)
    lmfusion.nbest.rescore("result.json", scorer, output="ranked.json")
    for utterance in lmfusion.nbest.read("exp/decode", missing="last"):
        print(utterance.name, utterance.hypotheses[0].text)

One module a toolkit or format says where text, score and order stand, what the score is, and what
is left alone; docs/nbest.md has the table.
"""

from __future__ import annotations

from lmfusion.nbest.hypothesis import Hypothesis, Utterance
from lmfusion.nbest.ranking import Ranked, TextScorer, rank, rescore
from lmfusion.nbest.reading import NBest, read

__all__ = ["Hypothesis", "NBest", "Ranked", "TextScorer", "Utterance", "rank", "read", "rescore"]
