"""CTranslate2: score_batch over the distinct texts of a call. It has no cache for scoring."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import ctranslate2

from peers.calls import Call

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def convert(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Writes the model in CTranslate2's form, float32, and returns `folder`."""
    from ctranslate2.converters import TransformersConverter
    with tempfile.TemporaryDirectory() as source:
        model.save_pretrained(source)
        tokenizer.save_pretrained(source)
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        TransformersConverter(source).convert(str(partial), quantization="float32", force=True)
    partial.rename(folder)
    return folder


class ScoreBatch:
    """`compute` as CTranslate2 names it; int8 quantizes the weights at load.

    Texts longer than one batch are sorted by length (score_batch does that itself).
    """

    def __init__(self, folder: Path, *, compute: str, threads: int, batch: int = 32) -> None:
        self._generator = ctranslate2.Generator(str(folder), device="cpu", compute_type=compute,
                                                inter_threads=1, intra_threads=threads)
        self._pieces = _read_vocabulary(folder)
        self._batch = batch
        self.tokens_computed = 0
        self.forwards = 0

    def new_utterance(self) -> None:
        """Nothing is kept."""

    def score(self, call: Call) -> list[float]:
        """[candidates] log p, nats."""
        distinct = list(dict.fromkeys(path.ids for path in call.paths if len(path.ids) > 1))
        results = self._generator.score_batch(
            [[self._pieces[token] for token in ids] for ids in distinct],
            max_batch_size=self._batch, max_input_length=0)
        found = {ids: result.log_probs for ids, result in zip(distinct, results)}
        self._count(sorted(map(len, distinct), reverse=True))
        return call.totals([sum(found.get(path.ids, ())[path.scored_begin - 1:])
                            for path in call.paths])

    def _count(self, lengths: list[int]) -> None:
        # A batch is as wide as its longest text; the last token of a text is only scored.
        batches = [lengths[i:i + self._batch] for i in range(0, len(lengths), self._batch)]
        self.tokens_computed += sum(len(batch) * (batch[0] - 1) for batch in batches)
        self.forwards += len(batches)


def _read_vocabulary(folder: Path) -> list[str]:
    return json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
