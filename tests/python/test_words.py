"""Words as events: ends, sums and casings, for both kinds of tokenizers, against Hugging Face."""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path

import lmfusion
import pytest
import sentencepiece
import tiny_models
import torch
import transformers
from devices import MakeScorer
from lmfusion.exporter import export
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

TOLERANCE = 1e-4  # nats per token
SENTENCES = ["the cat sat on the mat", "a cat and the other cats", "i am in the house and you are",
             "there is another one on the table", "mats and cats and tables in a house"]
# Beginnings of pieces whose text begins with white space.
WORD_PIECES = {"bytes": ("Ġ", "Ċ", "ĉ", "č", "ċ", "Č"),
               "sentencepiece": ("▁", "<0x20>", *(f"<0x{byte:02X}>" for byte in range(9, 14)))}


class Model:
    """A tiny transformers model with a tokenizer: the oracle, one forward pass a text."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
        self.tokenizer = (tiny_models.tiny_tokenizer() if kind == "bytes"
                          else trained_tokenizer(folder))
        self.bundle = export(self.model, self.tokenizer, folder / "tiny.lmf")
        self.start = lmfusion.LMFusionScorer(self.bundle).description["bos_token_id"]
        self.end = lmfusion.LMFusionScorer(self.bundle).description["eos_token_id"]
        pieces = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        self.begins = torch.zeros(tiny_models.VOCABULARY, dtype=torch.bool)
        self.begins[:len(pieces)] = torch.tensor(
            [str(piece).startswith(WORD_PIECES[kind]) for piece in pieces])
        self.begins[self.end] = True

    def log_p(self, text: str) -> tuple[float, torch.Tensor]:
        """log p(text), and [vocabulary] of the log-probabilities after it."""
        ids = [self.start, *self.tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            rows = self.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(rows[i, token].item() for i, token in enumerate(ids[1:])), rows[-1]

    def complete(self, text: str) -> float:
        """log p(text, and its last word ends)."""
        total, after = self.log_p(text)
        return total + after[self.begins].logsumexp(0).item()


def trained_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    """A SentencePiece BPE model with byte fallback, as Llama 2 has."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4), model_writer=trained, model_type="bpe",
        vocab_size=tiny_models.VOCABULARY, byte_fallback=True, hard_vocab_limit=False,
        normalization_rule_name="identity", minloglevel=2)
    path = folder / "tokenizer.model"
    path.write_bytes(trained.getvalue())
    return SentencePieceBackend(vocab_file=str(path), bos_token="<s>", eos_token="</s>",
                                unk_token="<unk>")


@pytest.fixture(scope="module", params=["bytes", "sentencepiece"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(request.param, tmp_path_factory.mktemp(request.param))


def test_a_complete_word(model: Model, make_scorer: MakeScorer) -> None:
    scorer = make_scorer(model.bundle, boundary="word")
    contexts = ["", "the", "the cat", "there is an"]
    words = ["cat", "cats", "a", "another"]
    for context, row in zip(contexts, scorer.log_probs(contexts, [words] * 4)):
        before = model.complete(context) if context else 0.0
        for word, score in zip(words, row):
            wanted = model.complete(f"{context} {word}".strip()) - before
            assert score == pytest.approx(wanted, abs=20 * TOLERANCE), (context, word)


def test_words_telescope(model: Model, make_scorer: MakeScorer) -> None:
    scorer = make_scorer(model.bundle, boundary="word")
    for first, second in itertools.product(["the", "a"], ["cat", "mats"]):
        (one,), (two,), (both,) = scorer.log_probs(
            ["in", f"in {first}", "in"], [[first], [second], [f"{first} {second}"]])
        assert one + two == pytest.approx(both, abs=20 * TOLERANCE)


def test_complete_words_sum_to_at_most_one(model: Model, make_scorer: MakeScorer) -> None:
    """A "plain" sum may be larger: "cat" holds what "cats" has too."""
    letters = "acehimnorstuy"
    words = [*letters, *(a + b for a in letters for b in letters), "the", "cat", "cats", "mat",
             "and", "house", "table", "another", "there"]
    scorer = make_scorer(model.bundle, boundary="word")
    for scores in scorer.log_probs(["the", "you are"], [words, words]):
        assert 0 < sum(map(math.exp, scores)) <= 1 + 1e-4


def test_any_split_of_a_text_keeps_its_sum(model: Model, make_scorer: MakeScorer) -> None:
    scorer = make_scorer(model.bundle)
    for text in ["the cat sat on another mat", "naïve o'clock 1,234 tables", "a  b"]:
        (whole,) = scorer.score_texts([text])
        assert whole == pytest.approx(model.log_p(text)[0], abs=40 * TOLERANCE)
        for at in range(1, len(text)):
            head, tail = text[:at], text[at:]
            if tail[0] != " " and head[-1] != " ":
                continue  # the scorer would put a space there
            (begin,), (rest,) = scorer.log_probs(["", head], [[head], [tail]])
            assert begin + rest == pytest.approx(whole, abs=40 * TOLERANCE), (head, tail)


def test_variants_are_alternatives(model: Model, make_scorer: MakeScorer) -> None:
    scorer = make_scorer(model.bundle, casing="variants")
    for context in ["", "the cat"]:
        ((score,),) = scorer.log_probs([context], [["mat"]])
        before = model.log_p(context)[0] if context else 0.0
        forms = torch.tensor([model.log_p(f"{context} {form}".strip())[0] - before
                              for form in ("mat", "Mat", "MAT")])
        assert score == pytest.approx(forms.logsumexp(0).item(), abs=20 * TOLERANCE)
