"""Export of Hugging Face causal language models into one file, `model.lmf`.

The file is a TorchScript archive whose extra files describe the model and hold its tokenizer.
docs/export.md has the format and the list of what is supported.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmfusion.errors import ExportError
from lmfusion.exporter import parity
from lmfusion.exporter.sources import check_model, load_model, load_tokenizer
from lmfusion.exporter.steps import Export, Progress
from lmfusion.exporter.torch_state import callers_state_aside

__all__ = ["ExportError", "export", "export_folder"]


@callers_state_aside()
def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | Literal[False] | None,
           path: str | os.PathLike[str], *, uncached: bool = False,
           lora: str | os.PathLike[str] | None = None,
           truecaser: str | os.PathLike[str] | None = None,
           gguf: str | os.PathLike[str] | None = None, source: str = "", license: str = "",
           tolerance: float = parity.TOLERANCE, progress: Progress | None = None) -> Path:
    """Writes a causal language model that is in memory as one bundle, checked before it is kept.

    Args:
        model: any transformers causal language model, or a peft model around one. Not changed;
            weights of another type than float32 are converted in a copy.
        tokenizer: its tokenizer; None or False exports without one, for a scorer that is given a
            callable.
        path: file to write, by custom ending in ".lmf". Replaced in one step when all is well.
        uncached: export the plain form (ids, mask -> logits), for models that tree attention
            cannot hold. It is scored without any cache.
        lora: folder of a LoRA adapter to merge into a copy of the weights.
        truecaser: a truecaser file (`python -m lmfusion export-truecaser`) to put into the bundle,
            which the casings "truecase" and "truecase-compat" then need not be given.
        gguf: the .gguf file that `model` was read from. Matrices that equal, to the bit, what the
            file's Q4_0, Q4_1 and Q8_0 blocks stand for are stored as these blocks.
        source: where the model is from, for the metadata; the model's name by default.
        license: its licence, for the metadata.
        tolerance: largest difference from eager attention that is accepted, nats per token.
        progress: called with a line of text at every stage.

    Returns:
        `path`.

    Raises:
        ExportError: the model or its tokenizer cannot be exported exactly; says what can be done.
        ModelFileError: `truecaser` is no truecaser file.
        FileNotFoundError: `truecaser` does not exist.
        TypeError: `model` is no live model.
    """
    check_model(model)
    return Export(
        load=lambda: model, load_tokenizer=lambda: tokenizer or None, owned=False,
        uncached=uncached, lora=_path(lora), truecaser=_path(truecaser), gguf=_path(gguf),
        source=source or str(getattr(model.config, "_name_or_path", "")), license=license,
        tolerance=tolerance, say=progress or _silent).write(Path(path))


@callers_state_aside()
def export_folder(folder: str | os.PathLike[str], path: str | os.PathLike[str], *,
                  tokenizer: bool = True, gguf_pre: str | None = None,
                  lora: str | os.PathLike[str] | None = None,
                  truecaser: str | os.PathLike[str] | None = None, uncached: bool = False,
                  source: str = "", license: str = "",
                  tolerance: float = parity.TOLERANCE, progress: Progress | None = None) -> Path:
    """As `export`, from a Hugging Face folder or a .gguf file.

    Q4_0, Q4_1 and Q8_0 blocks of a .gguf file are stored as they are, other types dequantized.

    Args:
        folder: the folder or file.
        tokenizer: False exports without the tokenizer.
        gguf_pre: how the byte-level BPE of a .gguf file splits text, as llama.cpp names it
            ("llama-bpe", "qwen2", "smollm", "gpt-2"), where the file does not say.

    Raises:
        ExportError: as `export`, or the source cannot be read.
        FileNotFoundError: `folder` or `truecaser` does not exist.
    """
    origin = Path(folder)
    if not origin.exists():
        raise FileNotFoundError(
            f"no such folder or file: {origin}. If it is a name on a model hub, download it first "
            f"(hf download {origin} --local-dir FOLDER) and give the folder")
    say = progress or _silent
    say(f"loading {origin}")
    return Export(
        load=lambda: load_model(origin),
        load_tokenizer=lambda: load_tokenizer(origin, gguf_pre) if tokenizer else None, owned=True,
        uncached=uncached, lora=_path(lora), truecaser=_path(truecaser),
        gguf=origin if origin.suffix == ".gguf" else None, source=source or origin.name,
        license=license, tolerance=tolerance, say=say).write(Path(path))


def _path(path: str | os.PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)


def _silent(line: str) -> None:
    pass
