"""What scores must be: plain Hugging Face, one forward pass a text, nothing shared."""

from __future__ import annotations

import random
import unicodedata

import pytest
import torch
import transformers

TOLERANCE = 1e-4  # nats per scored token
WORDS = ["i", "i'm", "don't", "the", "cat", "cats", "sat", "on", "a", "mat", "uh", "naïve",
         "straße", "日本", "🙂", "o'clock", "'tis", "x", "e\u0301", "3", "1,234", "u.s.",
         "well-known"]


def joined(context: str, word: str) -> str:
    """Context and word as people write them, as far as the words of these tests go."""
    if not context or not word or context[-1].isspace() or word[0].isspace():
        return context + word
    chinese = any(unicodedata.name(letter).startswith("CJK") for letter in (context[-1], word[0]))
    return context + word if chinese else f"{context} {word}"


class Oracle:
    """log p of texts by a transformers model, from the whole text's own tokens."""

    def __init__(self, model: transformers.PreTrainedModel, tokenizer: object, start: int) -> None:
        self.model, self.tokenizer, self.start = model, tokenizer, start

    def ids(self, text: str) -> list[int]:
        return [self.start, *self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def tokens_log_prob(self, ids: list[int]) -> list[float]:
        with torch.no_grad():
            log_p = self.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return [log_p[i, token].item() for i, token in enumerate(ids[1:])]

    def text(self, text: str, *, eos: int | None = None) -> float:
        ids = self.ids(text) + ([] if eos is None else [eos])
        return sum(self.tokens_log_prob(ids)) if len(ids) > 1 else 0.0

    def word(self, context: str, word: str) -> float:
        """log p(joined text) - log p(context), which needs no rule for tokens at the join."""
        return self.text(joined(context, word)) - self.text(context)


def requests(seed: int, contexts: int = 12) -> tuple[list[str], list[list[str]]]:
    """Contexts that share beginnings, repeat, are empty or end in a space; ragged candidates."""
    generator = random.Random(seed)
    texts = ["", "the cat ", "i'm"]
    while len(texts) < contexts:
        texts.append(" ".join([generator.choice(texts).strip(), generator.choice(WORDS)]).strip())
    texts.append(texts[-1])
    words = [[generator.choice(WORDS) for _ in range(generator.randrange(5))] for _ in texts]
    words[0] = ["", " the", "the", "then", "the cat", "the"]
    words[1] = []
    return texts, words


def check(oracle: Oracle, contexts: list[str], words: list[list[str]],
          scores: list[list[float]], weight: float = 1.0, bonus: float = 0.0) -> None:
    assert [len(row) for row in scores] == [len(row) for row in words]
    for context, row, row_scores in zip(contexts, words, scores):
        for word, score in zip(row, row_scores):
            tokens = len(oracle.ids(context + " " + word)) + 2
            assert score == pytest.approx(weight * oracle.word(context, word) + bonus,
                                          abs=TOLERANCE * tokens), (context, word)
