"""flashlight's results and torchaudio's `CTCHypothesis`.

torchaudio: words are joined; the score is the search's weighted sum of natural logarithms (sound,
language model, word score). Without a lexicon there are token ids only: `text=` makes the text.
Its CUDA decoder's `CUCTCHypothesis` has pieces where the other has words.
flashlight's `DecodeResult` has ids only, so `text=` is needed; the score taken is
`emittingModelScore`, the sound alone.
"""

from __future__ import annotations

from typing import Any

from lmfusion.nbest.hypothesis import Form, has, value_of


def _is_torchaudio(value: Any) -> bool:
    return (isinstance(value, tuple) and has(value, "tokens", "words", "score")
            and isinstance(value_of(value, "words"), list))


def _text(hypothesis: Any) -> str | None:
    if not hasattr(hypothesis, "timesteps"):  # the CUDA decoder
        return "".join(hypothesis.words).replace("▁", " ")
    if not hypothesis.words and len({int(token) for token in hypothesis.tokens}) > 1:
        return None  # more than silence was recognised, but not as words
    return " ".join(hypothesis.words)


TORCHAUDIO = Form("torchaudio CTCHypothesis", _is_torchaudio, _text,
                  lambda hypothesis, _: hypothesis.score)
FLASHLIGHT = Form("flashlight DecodeResult",
                  lambda value: has(value, "emittingModelScore", "tokens"),
                  lambda _: None, lambda result, _: result.emittingModelScore)
