"""NeMo in memory: `Hypothesis`, `NBestHypotheses`, lines of a manifest.

A `Hypothesis` has text and score, its search's sum of natural logarithms. A line of a manifest is
one utterance: "pred_text" (or "pred_text_NAME") is its best hypothesis, "beams" all of them as
[text, score]; "text" is the reference and is left alone. A line without beams has one hypothesis
and no score. After ranking, "pred_text" is again the text of the first beam.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from lmfusion.nbest.hypothesis import Form, has, value_of
from lmfusion.nbest.records import RECORD
from lmfusion.nbest.shape import Lists, Shape, reordered
from lmfusion.nbest.texts import PAIR, TEXT

HYPOTHESIS = Form("NeMo Hypothesis", lambda value: has(value, "y_sequence", "score", "text"),
                  lambda value: value_of(value, "text"), lambda value, _: value_of(value, "score"))


def _nbest_lists(document: Any) -> Lists:
    yield None, document.n_best_hypotheses, None


def _nbest_rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    result = copy.copy(document)
    result.n_best_hypotheses = reordered(document.n_best_hypotheses, next(orders))
    return result


NBEST = Shape("NeMo NBestHypotheses", lambda value: hasattr(value, "n_best_hypotheses"),
              _nbest_lists, _nbest_rebuilt)


def _is_best_and_all(document: Any) -> bool:
    if not (isinstance(document, tuple) and len(document) == 2
            and all(isinstance(part, list) for part in document)):
        return False
    best, everything = document
    return len(best) == len(everything) > 0 and all(
        HYPOTHESIS.matches(each) or isinstance(each, str) for each in best) and all(
        NBEST.matches(each) or (isinstance(each, list) and each and all(
            map(HYPOTHESIS.matches, each))) for each in everything)


def _all_lists(document: Any) -> Lists:
    for each in document[1]:
        yield None, each.n_best_hypotheses if NBEST.matches(each) else each, HYPOTHESIS


def _all_rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    everything = [_nbest_rebuilt(each, orders) if NBEST.matches(each)
                  else reordered(each, next(orders)) for each in document[1]]
    best = []
    for old, new in zip(document[0], everything):
        hypotheses = new.n_best_hypotheses if NBEST.matches(new) else new
        first = hypotheses[0] if hypotheses else old
        best.append(first.text if isinstance(old, str) and hypotheses else first)
    return best, everything


BEST_AND_ALL = Shape("NeMo (best, all) hypotheses", _is_best_and_all, _all_lists, _all_rebuilt)


def _predictions(line: Mapping[str, Any]) -> list[str]:
    """The fields that hold what was recognised, each by one model."""
    return [name for name in line if name == "pred_text" or name.startswith("pred_text_")]


def is_manifest_line(value: Any) -> bool:
    """A mapping that stands for one audio file."""
    return isinstance(value, Mapping) and ("audio_filepath" in value or "beams" in value or (
        "text" in value and "score" not in value and bool(_predictions(value))))


def _beam_form(line: Any) -> Form:
    """Pairs, as NeMo writes them, or what else all beams of a line are."""
    if not isinstance(line["beams"], (list, tuple)):
        raise ValueError(f'"beams" of the manifest\'s line of {line.get("audio_filepath")!r} is a '
                         f'{type(line["beams"]).__name__}; a list of [text, score] expected')
    for i, beam in enumerate(line["beams"]):
        if not (isinstance(beam, (list, tuple)) and len(beam) == 2) and not RECORD.matches(beam):
            raise ValueError(f'beams[{i}] of the manifest\'s line of {line.get("audio_filepath")!r}'
                             f' is a {type(beam).__name__}; [text, score] expected')
    return RECORD if line["beams"] and RECORD.matches(line["beams"][0]) else PAIR


def _line_lists(line: Any) -> Lists:
    name = line.get("audio_filepath")
    if "beams" in line:
        yield name, line["beams"], _beam_form(line)
        return
    predictions = _predictions(line)
    if len(predictions) != 1:
        raise ValueError(f"the manifest's line of {name!r} has neither \"beams\" nor one "
                         f'"pred_text" ({", ".join(line)})')
    yield name, [line[predictions[0]]], TEXT


def _line_rebuilt(line: Any, orders: Iterator[list[int]]) -> Any:
    order = next(orders)
    if "beams" not in line:
        return dict(line)
    beams = reordered(line["beams"], order)
    result = {**line, "beams": beams}
    for name in _predictions(line) if beams else ():
        text = _beam_form(line).text
        if line[name] == text(line["beams"][0]):
            result[name] = text(beams[0])
    return result


MANIFEST_LINE = Shape("NeMo manifest", is_manifest_line, _line_lists, _line_rebuilt)
