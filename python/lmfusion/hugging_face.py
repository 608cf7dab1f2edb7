"""A scorer straight from a transformers model in memory."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmfusion.scorer import LMFusionScorer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def from_hf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, uncached: bool = False,
            **options: Any) -> LMFusionScorer:
    """A scorer of a live transformers model, by way of a temporary file.

    Args:
        model: any transformers causal language model, or a peft model around one. Not changed.
        tokenizer: its tokenizer.
        uncached: as for `lmfusion.export`, for models that tree attention cannot hold.
        options: of `LMFusionScorer`; `device` is the model's where it is not given. A truecasing
            without `truecaser` uses the installed package `truecase`'s.

    Raises:
        ExportError: the model or its tokenizer cannot be exported exactly.
        ValueError: an option cannot be right.
    """
    from lmfusion.exporter import export
    from lmfusion.exporter.truecaser import export_truecaser
    folder = tempfile.TemporaryDirectory(prefix="lmfusion-")
    try:
        bundle = export(model, tokenizer, Path(folder.name) / "model.lmf", uncached=uncached)
        casing = options.get("casing", "none")
        if isinstance(casing, str) and casing.startswith("truecase"):
            options.setdefault("truecaser",
                               export_truecaser(Path(folder.name) / "english.truecase"))
        options.setdefault("device", str(model.device))
        scorer = LMFusionScorer(bundle, **options)
    except BaseException:
        folder.cleanup()
        raise
    weakref.finalize(scorer, folder.cleanup)  # the file stays for `to(device)`
    return scorer
