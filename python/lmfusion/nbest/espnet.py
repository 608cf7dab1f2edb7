"""ESPnet in memory: result.json, and what ESPnet 2's `Speech2Text` returns.

result.json is {"utts": {id: {"output": [hypothesis, ...]}}}. A hypothesis has what was recognised
in "rec_text" and, as "text", a copy of the reference, which is left alone.
ESPnet 2 gives tuples (text, tokens, token ids, hypothesis); the hypothesis has the score. Both
scores are the search's weighted sums of natural logarithms (CTC, attention, language model), or
their average a token where ESPnet's `normalize_length` was set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmfusion.nbest.hypothesis import Form, has, joined, value_of
from lmfusion.nbest.shape import Lists, Shape, reordered

RESULT = Form("ESPnet result.json",
              lambda value: isinstance(value, Mapping) and "rec_text" in value,
              lambda value: joined(value["rec_text"]), lambda value, _: value.get("score"))


def _is_tuple(value: Any) -> bool:
    return (isinstance(value, (list, tuple)) and len(value) in (4, 5)
            and (value[0] is None or isinstance(value[0], str))
            and isinstance(value[1], (list, tuple)) and has(value[3], "score"))


TUPLE = Form("ESPnet 2 tuple", _is_tuple, lambda value: value[0],
             lambda value, _: value_of(value[3], "score"))


def _is_results(document: Any) -> bool:
    return isinstance(document, Mapping) and isinstance(document.get("utts"), Mapping)


def _lists(document: Any) -> Lists:
    for name, utterance in document["utts"].items():
        if not isinstance(utterance, Mapping) or "output" not in utterance:
            raise ValueError(f'utterance {name!r} of an ESPnet result has no "output"')
        yield name, utterance["output"], RESULT


def _rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    return {**document, "utts": {
        name: {**utterance, "output": reordered(utterance["output"], next(orders))}
        for name, utterance in document["utts"].items()}}


RESULTS = Shape("ESPnet result.json", _is_results, _lists, _rebuilt)
