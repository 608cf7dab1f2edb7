"""Control tokens in texts, and start tokens by their ids, against transformers' own tokenizer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import lmfusion
import numpy
import pytest
from model_files import DESCRIPTION, read_parts, with_right_table, write_parts
from oracle import Oracle
from tokenizers import AddedToken, Tokenizer

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


def with_tokenizer(bundle: Path, name: str, content: bytes, path: Path) -> Path:
    parts = read_parts(bundle)
    description = json.loads(parts[DESCRIPTION]) | {"tokenizer": name}
    parts = {**parts, DESCRIPTION: json.dumps(description).encode(), f"extra/{name}": content}
    if name != "tokenizer.json":
        del parts["extra/tokenizer.json"]
    return write_parts(with_right_table(parts), path)


def test_added_tokens_beyond_the_models_vocabulary(bundle: Path, oracle: Oracle,
                                                   tmp_path: Path) -> None:
    """As in Gemma 3, whose token of images has no row: right until a text spells it."""
    tokenizer = Tokenizer.from_str(read_parts(bundle)["extra/tokenizer.json"].decode())
    size = oracle.model.config.vocab_size
    tokenizer.add_tokens([f"<{i}>" for i in range(tokenizer.get_vocab_size(), size)])
    tokenizer.add_special_tokens([AddedToken("<image>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<box>", normalized=False)])
    path = with_tokenizer(bundle, "tokenizer.json", tokenizer.to_str().encode(),
                          tmp_path / "more.lmf")
    scorer = lmfusion.LMFusionScorer(path)
    assert scorer.score_texts(["the <image> cat"]) == [
        pytest.approx(oracle.text("the <image> cat"), abs=TOLERANCE)]
    with pytest.raises(ValueError, match=f"token id {size + 1} is not in the model's vocabulary"):
        scorer.score_texts(["the <box> cat"])
    assert scorer.score_texts(["the cat"]) == [
        pytest.approx(oracle.text("the cat"), abs=TOLERANCE)]
    with pytest.raises(ValueError, match='bos = "<image>" .* not a token of the model'):
        lmfusion.LMFusionScorer(path, bos="<image>")


def test_another_models_sentencepiece_file(bundle: Path, tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece", reason="pip install sentencepiece==0.2.3")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "a key of the car"] * 9),
        model_writer=model, model_type="bpe", vocab_size=290, byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2, num_threads=1)
    path = with_tokenizer(bundle, "tokenizer.model", model.getvalue(), tmp_path / "other.lmf")
    with pytest.raises(lmfusion.ModelFileError, match=(
            "tokenizer.model: pieces: ids up to 2.*, but the model has 280 tokens")):
        lmfusion.LMFusionScorer(path)
