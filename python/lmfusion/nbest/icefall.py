"""icefall and sherpa-onnx.

icefall's searches keep `Hypothesis` objects with ids `ys` and `log_prob`, the sum of the natural
logarithms, in a `HypothesisList` or a dictionary by their ids; `text=` makes the text of one.
Its recipes' results, {setting: [(id, reference words, recognised words), ...]}, have one
hypothesis an utterance and no score; the reference is left alone.
sherpa-onnx's dictionaries have text and `ys_probs`, the natural logarithms of the tokens, whose
sum is taken; `lm_probs` and `context_scores`, of its own fusion, are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmfusion.nbest.hypothesis import Form, has, joined, value_of
from lmfusion.nbest.shape import Lists, Shape

ICEFALL = Form("icefall Hypothesis", lambda value: has(value, "ys", "log_prob"),
               lambda value: joined(value_of(value, "text")),
               lambda value, _: value_of(value, "log_prob"))


def _sum(values: Any) -> float | None:
    return float(sum(map(float, values))) if values is not None and len(values) else None


SHERPA = Form("sherpa-onnx result, ys_probs", lambda value: has(value, "text", "ys_probs"),
              lambda value: value_of(value, "text"),
              lambda value, _: _sum(value_of(value, "ys_probs")))


def _data(document: Any) -> Any:
    """The dictionary of an icefall HypothesisList, or the dictionary itself."""
    for name in ("data", "_data"):
        if isinstance(found := getattr(document, name, None), Mapping):
            return found
    return document


def _is_dictionary(document: Any) -> bool:
    data = _data(document)
    return isinstance(data, Mapping) and bool(data) and all(
        ICEFALL.matches(value) and not isinstance(value, Mapping) for value in data.values())


def _dictionary_rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    items = list(_data(document).items())
    return dict(items[index] for index in next(orders))


DICTIONARY = Shape("icefall dictionary of Hypothesis", _is_dictionary,
                   lambda document: iter([(None, list(_data(document).values()), ICEFALL)]),
                   _dictionary_rebuilt)


def _is_result(value: Any) -> bool:
    return (isinstance(value, (list, tuple)) and len(value) == 3 and isinstance(value[0], str)
            and all(isinstance(words, (list, str)) and joined(words) is not None
                    for words in value[1:]))


RESULT = Form("icefall result", _is_result, lambda value: joined(value[2]), lambda *_: 0.0)


def _is_results(document: Any) -> bool:
    return isinstance(document, Mapping) and bool(document) and all(
        isinstance(results, list) and results and all(map(_is_result, results))
        for results in document.values())


def _results_lists(document: Any) -> Lists:
    for results in document.values():
        for result in results:
            yield result[0], [result], RESULT


def _results_rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    for _ in orders:  # one hypothesis each: nothing changes
        pass
    return {setting: list(results) for setting, results in document.items()}


RESULTS = Shape("icefall results by setting", _is_results, _results_lists, _results_rebuilt)
