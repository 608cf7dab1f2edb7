"""Mappings and objects with named fields.

What was recognised stands in the first of TEXT_FIELDS that is there; "text" comes after those that
stand beside a reference of that name. The score is the first of SCORE_FIELDS, a sum of natural
logarithms (`log_base=` says otherwise). Everything else is left alone.
"""

from __future__ import annotations

from typing import Any

from lmfusion.nbest.hypothesis import Form, Options, has, is_number, joined, number, value_of

TEXT_FIELDS = ("rec_text", "pred_text", "hyp", "hypothesis", "text", "transcript", "sentence")
SCORE_FIELDS = ("score", "am_score", "acoustic_score", "log_prob", "logprob", "tot_score",
                "total_score")
SEGMENT_FIELDS = ("start", "end")  # a stretch of one transcription is not a hypothesis


def _matches(value: Any) -> bool:
    if isinstance(value, (str, bytes, list)) or has(value, *SEGMENT_FIELDS):
        return False
    return text_of(value) is not None


def text_of(record: Any) -> str | None:
    """What was recognised; None where no field has it."""
    for name in TEXT_FIELDS:
        if not callable(text := value_of(record, name)) and text is not None:
            return joined(text)
    return None


def _score(record: Any, options: Options) -> Any:
    for name in SCORE_FIELDS:
        if has(record, name) and not callable(score := value_of(record, name)):
            return options.nats(number(score)) if is_number(score) else score
    return None


RECORD = Form("record with named fields", _matches, text_of, _score)
