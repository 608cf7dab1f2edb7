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


def _result_text(value: Any) -> str | None:
    """The text without the pieces' marks and the end, which ESPnet puts together as they come."""
    text = joined(value["rec_text"])
    return None if text is None else text.replace("▁", " ").strip().removesuffix("<eos>").strip()


RESULT = Form("ESPnet result.json",
              lambda value: isinstance(value, Mapping) and "rec_text" in value,
              _result_text, lambda value, _: value.get("score"))


def _is_tuple(value: Any) -> bool:
    return (isinstance(value, (list, tuple)) and len(value) in (4, 5)
            and (value[0] is None or isinstance(value[0], str))
            and isinstance(value[1], (list, tuple)) and has(value[3], "score"))


def _is_s2t_tuple(value: Any) -> bool:
    return (isinstance(value, (list, tuple)) and len(value) == 5
            and all(value[i] is None or isinstance(value[i], str) for i in (0, 3))
            and isinstance(value[1], (list, tuple)) and has(value[4], "score"))


TUPLE = Form("ESPnet 2 tuple", _is_tuple, lambda value: value[0],
             lambda value, _: value_of(value[3], "score"))
S2T_TUPLE = Form("ESPnet 2 speech-to-text tuple", _is_s2t_tuple, lambda value: value[3],
                 lambda value, _: value_of(value[4], "score"))


def _is_results(document: Any) -> bool:
    return isinstance(document, Mapping) and isinstance(document.get("utts"), Mapping)


def _lists(document: Any) -> Lists:
    for name, utterance in document["utts"].items():
        if not isinstance(utterance, Mapping) or "output" not in utterance:
            raise ValueError(f'utterance {name!r} of an ESPnet result has no "output"')
        lists = utterance["output"] if _has_speakers(utterance) else [utterance["output"]]
        for hypotheses in lists:
            for i, hypothesis in enumerate(hypotheses):
                if not RESULT.matches(hypothesis):
                    raise ValueError(f'hypothesis {i} of utterance {name!r} of an ESPnet result '
                                     'has no "rec_text"')
            yield name, hypotheses, RESULT


def _has_speakers(utterance: Mapping[str, Any]) -> bool:
    """Whether there is a list of hypotheses for each speaker of a mixture."""
    output = utterance["output"]
    return bool(output) and all(isinstance(each, list) for each in output)


def _rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    def output(utterance: Mapping[str, Any]) -> Any:
        if _has_speakers(utterance):
            return [reordered(each, next(orders)) for each in utterance["output"]]
        return reordered(utterance["output"], next(orders))
    return {**document, "utts": {name: {**utterance, "output": output(utterance)}
                                 for name, utterance in document["utts"].items()}}


RESULTS = Shape("ESPnet result.json", _is_results, _lists, _rebuilt)
