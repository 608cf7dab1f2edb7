"""Hugging Face transformers in float32: without a cache, and by the literal plan."""

from __future__ import annotations

from collections import defaultdict

import torch
from transformers import DynamicCache, PreTrainedModel

from peers.calls import Call


class UncachedBatches:
    """Every text on its own, in padded batches in the order they came, logits at all positions.

    Padding is on the right, where a causal model does not see it, so no mask is passed: that
    leaves the fused attention its fastest path.
    """

    def __init__(self, model: PreTrainedModel, batch: int = 32) -> None:
        self._model = model
        self._batch = batch
        self.tokens_computed = 0
        self.forwards = 0

    def new_utterance(self) -> None:
        """Nothing is kept."""

    @torch.inference_mode()
    def score(self, call: Call) -> list[float]:
        """[candidates] log p, nats."""
        sums: list[float] = []
        for begin in range(0, len(call.paths), self._batch):
            paths = call.paths[begin:begin + self._batch]
            longest = max(len(path.ids) for path in paths)
            ids = torch.zeros(len(paths), longest, dtype=torch.long)
            scored = torch.zeros(len(paths), longest - 1)
            for row, path in enumerate(paths):
                ids[row, :len(path.ids)] = torch.tensor(path.ids)
                scored[row, path.scored_begin - 1:len(path.ids) - 1] = 1.0
            logits = self._model(input_ids=ids, use_cache=False).logits[:, :-1]
            chosen = logits.gather(2, ids[:, 1:, None])[:, :, 0]
            sums += ((chosen - logits.logsumexp(2)) * scored).sum(1).tolist()
            self.tokens_computed += ids.numel()
            self.forwards += 1
        return call.totals(sums)


class LiteralPlan:
    """One prefill per distinct context of a call, then one pass per word with the KV cache.

    A word of one token needs no pass of its own: the prefill has its probability.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.tokens_computed = 0
        self.forwards = 0

    def new_utterance(self) -> None:
        """Nothing is kept between calls."""

    @torch.inference_mode()
    def score(self, call: Call) -> list[float]:
        """[candidates] log p, nats."""
        sums = [0.0] * len(call.paths)
        of_context: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, path in enumerate(call.paths):
            of_context[path.ids[:path.scored_begin]].append(index)
        for context, indices in of_context.items():
            words = [call.paths[index].ids[len(context):] for index in indices]
            if not context or not any(words):
                continue
            cache = DynamicCache()
            first = self._forward(context, cache, keep=1)
            for index, word in zip(indices, words):
                rows = first[:len(word)]
                if len(word) > 1:
                    rows = torch.cat([first, self._forward(word[:-1], cache)])
                    cache.crop(1 - len(word))  # what the pass added
                if word:
                    sums[index] = float(rows.gather(1, torch.tensor(word)[:, None]).sum())
        return call.totals(sums)

    def _forward(self, ids: tuple[int, ...], cache: DynamicCache, keep: int = 0) -> torch.Tensor:
        """[keep, vocabulary] log p of what follows each of the last `keep` tokens; 0: all."""
        self.tokens_computed += len(ids)
        self.forwards += 1
        output = self._model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True,
                             logits_to_keep=keep)
        return output.logits[0].log_softmax(dim=-1)
