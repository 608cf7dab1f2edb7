"""HypR: {"utt_id", "ref", "hyps": [text, ...], "att_score", "ctc_score", "lm_score", "score"}.

Lists side by side, as https://github.com/Alfred0622/HypR describes them. The score taken is
"score", the search's weighted sum of natural logarithms; "lm_score" is the language model's part
where one was used. "ref" is the reference and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmfusion.nbest.hypothesis import Form
from lmfusion.nbest.shape import Lists, Shape

HYPOTHESIS = Form("HypR hypothesis", lambda _: False, lambda row: row[0], lambda row, _: row[1],
                  lambda row, _: row[2])


def _is_hypr(document: Any) -> bool:
    return (isinstance(document, Mapping) and isinstance(document.get("hyps"), list)
            and isinstance(document.get("score"), list)
            and all(isinstance(text, str) for text in document["hyps"])
            and len(document["hyps"]) == len(document["score"]))


def _lists(document: Any) -> Lists:
    ngrams = document.get("lm_score") or [0.0] * len(document["hyps"])
    name = document.get("utt_id")
    yield (None if name is None else str(name),
           list(zip(document["hyps"], document["score"], ngrams)), HYPOTHESIS)


def _rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    order = next(orders)
    return {name: [column[index] for index in order]
            if isinstance(column, list) and len(column) == len(order) else column
            for name, column in document.items()}


HYPR = Shape("HypR", _is_hypr, _lists, _rebuilt)
