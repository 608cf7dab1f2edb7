"""`LMFusionScorer`, the typed face of the core's scorer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from lmfusion import _core


class LMFusionScorer:
    """How likely words and texts are under a causal language model, exactly.

    All log-probabilities are natural logarithms (nats). Texts that share a prefix share its
    computation, within a call and between calls, up to `kv_cache_bytes`; what is kept never
    changes a score. Thread safe: calls of several threads are packed together, and the GIL is
    released while they compute.

    Args:
        model: a model file (`python -m lmfusion export`), or any TorchScript causal language
            model (ids [B, T], mask [B, T]) -> logits [B, T, vocabulary], scored without a cache.
        weight, word_insertion_bonus: score = weight * sum(log p) + word_insertion_bonus, per word.
        homophone_aggregation: "max" or "logsumexp", for `aggregate_homophone_scores`.
        device: "cpu", "cuda" or "cuda:N".
        compute: type of the matrix products, "float32" (exact) or a faster one (docs/speed.md).
        max_context_length: tokens of context that are kept, the start token not counted; older
            ones are dropped in blocks, counted in `stats().truncated_contexts`.
        casing: "none", "sentence", "truecase", "truecase-compat", "variants" (docs/casing.md), or
            a function from a whole text to the cased text.
        truecaser: file of a truecaser, for the two truecasings; default: the one in the model.
        tokenizer: function from a text to its token ids, in place of the model's own tokenizer.
        kv_cache_bytes: hard limit of the cache in bytes, or "auto": 1 GiB on the CPU, half of the
            free memory of a device.
        max_batch_tokens: tokens of one forward pass at most.
        bos: the token before every text: "auto", "tokenizer", "none", or a token.
        boundary: "plain", or "word" for the end-of-word correction (docs/boundaries.md).
        kv_dtype: what a device keeps keys and values in, "float32", "bfloat16", "float16",
            "float8", or "auto" for the type of `compute` (docs/memory.md).
        mode: "tree", "grouped" or "uncached"; the same scores at other costs.

    Raises:
        ModelFileError: the file cannot be read.
        TokenizerError: its tokenizer is of an unknown kind.
        ValueError: an argument cannot be right; the text names it.
    """

    def __init__(self, model: str | os.PathLike[str], *, weight: float = 0.3,
                 word_insertion_bonus: float = 0.0, homophone_aggregation: str = "max",
                 device: str = "cpu", compute: str = "float32", max_context_length: int = 512,
                 casing: str | Callable[[str], str] = "none",
                 truecaser: str | os.PathLike[str] | None = None,
                 tokenizer: Callable[[str], Sequence[int]] | None = None,
                 kv_cache_bytes: int | str = "auto", max_batch_tokens: int = 512,
                 bos: str = "auto", boundary: str = "plain", mode: str = "tree",
                 kv_dtype: str = "auto") -> None:
        if isinstance(kv_cache_bytes, str):
            if kv_cache_bytes != "auto":
                raise ValueError(f'kv_cache_bytes = {kv_cache_bytes!r}; bytes or "auto" expected')
            kv_cache_bytes = -1
        self._core = _core.LMFusionScorer(
            os.fspath(model), weight=weight, word_insertion_bonus=word_insertion_bonus,
            homophone_aggregation=homophone_aggregation, device=str(device), compute=compute,
            max_context_length=max_context_length, casing=casing,
            truecaser="" if truecaser is None else os.fspath(truecaser), tokenizer=tokenizer,
            kv_cache_bytes=kv_cache_bytes, max_batch_tokens=max_batch_tokens, bos=bos,
            boundary=boundary, mode=mode, kv_dtype=kv_dtype)

    def score_continuations(self, contexts: Sequence[str],
                            candidate_words: Sequence[Sequence[str]], *,
                            cache_namespace: str = "") -> list[list[float]]:
        """weight * log p(word | context) + word_insertion_bonus of every candidate.

        Args:
            contexts: [contexts]; may repeat, may be empty texts.
            candidate_words: [contexts][candidates of each].
            cache_namespace: calls of different namespaces share nothing.

        Returns:
            [contexts][candidates].

        Raises:
            ValueError: the lengths differ, or a text is not valid Unicode.
            CacheBudgetError: one text is larger than `kv_cache_bytes`.
            NumericalError: the model gave NaN or infinity.
        """
        return self._core.score_continuations(contexts, candidate_words, cache_namespace)

    def log_probs(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
                  cache_namespace: str = "") -> list[list[float]]:
        """As `score_continuations` without weight and bonus: log p(word | context), nats."""
        return self._core.log_probs(contexts, candidate_words, cache_namespace)

    def score_texts(self, texts: Sequence[str], *, eos: bool = False,
                    cache_namespace: str = "") -> list[float]:
        """log p of whole texts, nats, unweighted; with the end-of-text token where `eos`."""
        return self._core.score_texts(texts, eos, cache_namespace)

    def score_endings(self, texts: Sequence[str], endings: Sequence[str], *,
                      cache_namespace: str = "") -> list[list[float]]:
        """log p(ending | text), nats, unweighted: [texts][endings].

        An ending follows its text without a space; "" stands for the end-of-text token.
        """
        return self._core.score_endings(texts, endings, cache_namespace)

    def score_token_paths(self, paths: Sequence[Sequence[int]], scored_begin: Sequence[int], *,
                          cache_namespace: str = "") -> list[list[float]]:
        """log p (nats) of each token of a path from `scored_begin` (at least 1) on."""
        return self._core.score_token_paths(paths, scored_begin, cache_namespace)

    def explain(self, context: str, word: str, *, cache_namespace: str = "") -> _core.Explanation:
        """One candidate, token by token: log p, what was reused, what was computed."""
        return self._core.explain(context, word, cache_namespace)

    def aggregate_homophone_scores(self, scores: Sequence[float]) -> float:
        """One score for words that sound alike, by `homophone_aggregation`."""
        return self._core.aggregate_homophone_scores(scores)

    def stats(self) -> _core.Stats:
        """What was done since the scorer was made or `reset_stats()`."""
        return self._core.stats()

    def reset_stats(self) -> None:
        """Sets the counters of `stats()` to zero; the cache stays."""
        self._core.reset_stats()

    def clear_cache(self) -> None:
        """Forgets everything that was computed; waits for calls in progress."""
        self._core.clear_cache()

    @property
    def description(self) -> dict[str, Any]:
        """The model's description, the fields of docs/export.md; {} for a foreign file."""
        return json.loads(self._core.model_description)

    def __repr__(self) -> str:
        return repr(self._core)
