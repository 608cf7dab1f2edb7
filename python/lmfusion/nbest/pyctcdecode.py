"""pyctcdecode: `decode_beams`, `decode_beams_batch`; Wav2Vec2's processor with `n_best=`.

A beam is (text, state, frames, logit score, score), from a batch the same without the state, or
an object `OutputBeam` with these names. The score taken is the logit score: the sum of the
natural logarithms of the acoustic probabilities, without pyctcdecode's own language model and hot
words, which its last score contains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmfusion.nbest.hypothesis import Form, has, is_number, value_of
from lmfusion.nbest.shape import Lists, Shape


def _is_tuple(value: Any) -> bool:
    return (isinstance(value, (list, tuple)) and len(value) in (4, 5) and isinstance(value[0], str)
            and isinstance(value[-3], (list, tuple))
            and all(score is None or is_number(score) for score in value[-2:]))


def _is_object(value: Any) -> bool:
    return has(value, "text", "logit_score") and isinstance(value_of(value, "text"), str)


BEAM_TUPLE = Form("pyctcdecode beam", _is_tuple, lambda beam: beam[0], lambda beam, _: beam[-2])
BEAM_OBJECT = Form("pyctcdecode OutputBeam", _is_object, lambda beam: value_of(beam, "text"),
                   lambda beam, _: value_of(beam, "logit_score"))


def _is_batch(document: Any) -> bool:
    if not has(document, "text", "logit_score"):
        return False
    texts = value_of(document, "text")
    return isinstance(texts, list) and bool(texts) and all(isinstance(each, list) for each in texts)


_FIELDS = ("text", "logit_score", "lm_score", "word_offsets")


def _batch_lists(document: Any) -> Lists:
    for texts, scores in zip(value_of(document, "text"), value_of(document, "logit_score")):
        yield None, list(zip(texts, scores)), None


def _batch_rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    kept = list(orders)
    fields = {name: [[each[index] for index in order] for each, order in zip(values, kept)]
              for name in _FIELDS if (values := value_of(document, name)) is not None}
    if isinstance(document, Mapping) and type(document) is dict:
        return {**document, **fields}
    return type(document)(**fields)


BATCH = Shape("Wav2Vec2ProcessorWithLM.batch_decode(n_best=)", _is_batch, _batch_lists,
              _batch_rebuilt)
