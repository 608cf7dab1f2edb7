"""Whisper: `decode` results, `transcribe` results, faster-whisper and WhisperX.

All of them give averages: avg_logprob is the sum of the natural logarithms of the tokens and the
end, divided by the number of tokens + 1. The score taken is the sum. A transcription adds up its
segments; those cut from one window of sound share its average, and its end counts once. Segments
that carry no tokens (WhisperX) are counted by `token_count=`, or by their words. The scores of
WhisperX's words are of their alignment and are left alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from lmfusion.nbest.hypothesis import Form, Options, has, is_number, number, value_of


def _is_segment(value: Any) -> bool:
    return has(value, "start", "end", "text") and not isinstance(value, str)


def _is_decoded(value: Any) -> bool:
    return (has(value, "avg_logprob", "text") and not _is_segment(value)
            and isinstance(value_of(value, "text"), str))


def _is_transcription(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("segments"), list)


def _is_segments(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(map(_is_segment, value)) and (
        any(has(segment, "avg_logprob") for segment in value))


def _length(part: Any, options: Options) -> int:
    tokens = value_of(part, "tokens")
    if tokens is not None:
        return len(tokens)
    count = options.token_count or (lambda text: len(text.split()))
    return count(value_of(part, "text"))


def _decoded_score(result: Any, options: Options) -> Any:
    average = value_of(result, "avg_logprob")
    return number(average) * (_length(result, options) + 1) if is_number(average) else average


def _segments_score(segments: Any, options: Options) -> Any:
    total = 0.0
    averages = [value_of(segment, "avg_logprob") for segment in segments]
    if not segments or not all(map(is_number, averages)):
        return None
    windows = itertools.groupby(zip(segments, averages),
                                lambda pair: (value_of(pair[0], "seek"), pair[1]))
    for (_, average), window in windows:
        total += number(average) * (1 + sum(_length(segment, options) for segment, _ in window))
    return total


def _transcription_text(result: Any) -> str:
    text = result.get("text")
    return text if isinstance(text, str) else _segments_text(result["segments"])


def _segments_text(segments: Any) -> str:
    texts = [value_of(segment, "text") for segment in segments]
    return " ".join(" ".join(texts).split())


DECODED = Form("Whisper decode() result, avg_logprob", _is_decoded,
               lambda result: value_of(result, "text"), _decoded_score)
TRANSCRIPTION = Form("Whisper transcribe() result, avg_logprob of every segment",
                     _is_transcription, _transcription_text,
                     lambda result, options: _segments_score(result["segments"], options))
SEGMENTS = Form("Whisper segments, avg_logprob of every segment", _is_segments, _segments_text,
                _segments_score)
