"""Control tokens in texts, and start tokens by their ids, against transformers' own tokenizer."""

from __future__ import annotations

from pathlib import Path

import lmfusion
import numpy
import pytest
from oracle import Oracle

TOLERANCE = 2e-3  # nats a text of some tokens
TEXTS = ["<s>the cat</s>", "the </s> cat", "<pad><pad>", "a<s>", "the cat"]


def test_control_tokens_are_letters_unless_allowed(bundle: Path, oracle: Oracle) -> None:
    letters, tokens = (lmfusion.LMFusionScorer(bundle, special_tokens=each)
                       for each in ("text", "allow"))
    assert lmfusion.LMFusionScorer(bundle).options["special_tokens"] == "text"
    for text in TEXTS:
        assert tokens.tokenizer.encode(text) == oracle.ids(text)[1:]
        assert tokens.score_texts([text]) == [pytest.approx(oracle.text(text), abs=TOLERANCE)]
        assert tokens.tokenizer.decode(oracle.ids(text)[1:]) == text
        ids = oracle.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        assert letters.tokenizer.encode(text) == ids["input_ids"]
    wanted = pytest.approx(oracle.text("the</s> cat") - oracle.text("the</s>"), abs=TOLERANCE)
    assert tokens.log_probs(["the</s>"], [["cat"]]) == [[wanted]]
    assert letters.score_texts(TEXTS[:1])[0] < tokens.score_texts(TEXTS[:1])[0] - 5


def test_what_cannot_be_allowed(bundle: Path, oracle: Oracle) -> None:
    with pytest.raises(ValueError, match='special_tokens = "yes"; one of "text", "allow"'):
        lmfusion.LMFusionScorer(bundle, special_tokens="yes")
    with pytest.raises(ValueError, match="a tokenizer function reads"):
        lmfusion.LMFusionScorer(bundle, special_tokens="allow",
                                tokenizer=oracle.tokenizer.encode)
    scorer = lmfusion.LMFusionScorer(bundle, tokenizer=oracle.tokenizer.encode)
    with pytest.raises(ValueError, match="no pieces"):
        scorer.tokenizer.decode([3])


@pytest.mark.parametrize("start", [2, numpy.int64(2)])
def test_a_start_token_by_its_id(bundle: Path, oracle: Oracle, start: int) -> None:
    other = Oracle(oracle.model, oracle.tokenizer, 2)
    for options in ({}, {"tokenizer": lambda text: oracle.ids(text)[1:]}):
        scorer = lmfusion.LMFusionScorer(bundle, bos=start, **options)
        assert scorer.options["bos_id"] == 2
        assert scorer.score_texts(["the cat"]) == [
            pytest.approx(other.text("the cat"), abs=TOLERANCE)]
    for wrong in (-2, 10**6):
        with pytest.raises(ValueError, match="not within the vocabulary"):
            lmfusion.LMFusionScorer(bundle, bos=wrong)
    with pytest.raises(ValueError, match="decides the start token"):
        lmfusion.LMFusionScorer(bundle, bos=2, compat="hf")
    with pytest.raises((TypeError, ValueError), match="bos"):
        lmfusion.LMFusionScorer(bundle, bos=2, bos_id=1)
