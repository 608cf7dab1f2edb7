"""The yardstick: the same scores by plain Hugging Face code, in padded batches.

Done as well as it can be without a cache: the texts are tokenized whole, ordered by length so that
little is padded, in batches of 32; the last token of a text is not fed, and logits are computed
only where a token is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lmfusion.exporter.sources import load_model, load_tokenizer
from lmfusion.exporter.tokenizer_file import original_ids
from lmfusion.tuning.text_form import sentence_case

BATCH = 32


@dataclass(frozen=True)
class _Text:
    ids: list[int]  # the start token first
    scored_from: int  # ids[scored_from:] are scored


class HuggingFaceScorer:
    """log p by transformers, float32, scaled-dot-product attention."""

    def __init__(self, source: Path, start: int) -> None:
        """Loads a Hugging Face folder or a .gguf file with its tokenizer.

        Args:
            start: id of the token before every text.
        """
        self._model = load_model(source)
        self._model.set_attn_implementation("sdpa")
        self._tokenizer = load_tokenizer(source)
        self._start = start
        self.tokens_computed = 0  # positions that went through the model, padding counted

    def score_texts(self, texts: Sequence[str], *,
                    progress: Callable[[int], None] = lambda count: None) -> list[float]:
        """[texts] of log p(text), nats.

        Args:
            progress: called with the number of texts after each batch.
        """
        return self._score([_Text(self._ids(text), 1) for text in texts], progress)

    def score_continuations(self, contexts: Sequence[str],
                            candidate_words: Sequence[Sequence[str]]) -> list[list[float]]:
        """[contexts][words] of log p(word | context), nats; words follow after a space."""
        texts = []
        for context, words in zip(contexts, candidate_words, strict=True):
            context_ids = self._ids(context)
            for word in words:
                ids = self._ids(f"{context} {word}" if context else word)
                if ids[:len(context_ids)] != context_ids:
                    raise ValueError(f"a token spans the end of {context!r} and {word!r}")
                texts.append(_Text(ids, len(context_ids)))
        scores = iter(self._score(texts, lambda count: None))
        return [[next(scores) for _ in words] for words in candidate_words]

    def _ids(self, text: str) -> list[int]:
        return [self._start, *original_ids(self._tokenizer, sentence_case(text))]

    def _score(self, texts: list[_Text], progress: Callable[[int], None]) -> list[float]:
        scores = [0.0] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
        for begin in range(0, len(order), BATCH):
            batch = order[begin:begin + BATCH]
            for index, score in zip(batch, self._score_batch([texts[i] for i in batch])):
                scores[index] = score
            progress(len(batch))
        return scores

    @torch.inference_mode()
    def _score_batch(self, batch: list[_Text]) -> list[float]:
        width = max(len(text.ids) for text in batch) - 1
        if width == 0:  # nothing but start tokens
            return [0.0] * len(batch)
        inputs = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(inputs)
        scored = torch.zeros_like(inputs, dtype=torch.bool)
        for row, text in enumerate(batch):
            length = len(text.ids) - 1
            inputs[row, :length] = torch.tensor(text.ids[:-1])
            mask[row, :length] = 1
            scored[row, text.scored_from - 1:length] = True
        self.tokens_computed += inputs.numel()
        hidden = self._model.get_decoder()(input_ids=inputs, attention_mask=mask,
                                           use_cache=False).last_hidden_state
        log_probs = self._model.get_output_embeddings()(hidden[scored]).log_softmax(dim=-1)
        targets = torch.tensor([token for text in batch for token in text.ids[text.scored_from:]])
        rows = scored.nonzero()[:, 0]
        sums = torch.zeros(len(batch), dtype=torch.float64)
        sums.index_add_(0, rows, log_probs.gather(1, targets[:, None])[:, 0].double())
        return sums.tolist()
