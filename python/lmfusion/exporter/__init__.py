"""Export of Hugging Face causal language models into one file, `model.lmf`.

The file is a TorchScript archive whose extra files describe the model and hold its tokenizer.
docs/export.md has the format and the list of what is supported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmfusion._core import Truecaser
from lmfusion.errors import ExportError
from lmfusion.exporter import parity
from lmfusion.exporter.container import write_model_file
from lmfusion.exporter.lora import merged_with_lora
from lmfusion.exporter.metadata import Metadata
from lmfusion.exporter.narrow import WeightTypes, narrow_weights
from lmfusion.exporter.probes import (
    refuse_models_that_look_ahead,
    refuse_weights_that_are_no_numbers,
)
from lmfusion.exporter.replica import float32_replica
from lmfusion.exporter.sources import (
    check_model,
    load_model,
    load_tokenizer,
    refuse_encoder_decoder,
)
from lmfusion.exporter.tokenizer_file import SAMPLE_LINES, original_ids, read_tokenizer
from lmfusion.exporter.torch_state import callers_state_aside
from lmfusion.exporter.traced import describe, trace_plain, trace_tree
from lmfusion.replaced_file import replaced

__all__ = ["ExportError", "export", "export_folder"]

Progress = Callable[[str], None]


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
    target = Path(path)
    say = progress or (lambda line: None)
    extra_files = _read_truecaser(truecaser)
    check_model(model)
    refuse_encoder_decoder(model.config)
    tokenizer = tokenizer or None
    say("reading the tokenizer")
    tokenizer_file = read_tokenizer(tokenizer)
    if tokenizer_file.name:
        extra_files[tokenizer_file.name] = tokenizer_file.content
    refuse_weights_that_are_no_numbers(model)
    model = merged_with_lora(model, None if lora is None else Path(lora))
    refuse_models_that_look_ahead(float32_replica(model))
    say(f"tracing {type(model).__name__}")
    if uncached:
        traced = trace_plain(model)
    else:
        types = WeightTypes(None if gguf is None else Path(gguf))
        traced = trace_tree(model, types)
        say("finding the narrowest types that lose nothing")
        traced = replace(traced, stored=narrow_weights(traced.module, types))
    metadata = describe(model, tokenizer, tokenizer_file, traced,
                        source or str(getattr(model.config, "_name_or_path", "")), license)
    paths = _check_paths(metadata, tokenizer)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced(target) as temporary:
        say("checking against eager attention")
        original = float32_replica(model)
        if traced.architecture is None:
            found = parity.check_plain(traced.module, original, paths, tolerance)
        else:
            write_model_file(traced.module, metadata.to_json(), extra_files, temporary)
            found = parity.check_tree(temporary, original, traced.architecture, paths, tolerance)
        say(f"writing {target}: within {found.max_difference:.1e} nats per token")
        write_model_file(traced.module, replace(metadata, parity=found).to_json(), extra_files,
                         temporary)
    return target


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
    say = progress or (lambda line: None)
    say(f"loading {origin}")
    model = load_model(origin)
    return export(model, load_tokenizer(origin, gguf_pre) if tokenizer else None, path,
                  uncached=uncached,
                  lora=lora, truecaser=truecaser,
                  gguf=origin if origin.suffix == ".gguf" else None,
                  source=source or origin.name, license=license, tolerance=tolerance,
                  progress=progress)


def _check_paths(metadata: Metadata, tokenizer: PreTrainedTokenizerBase | None) -> parity.Paths:
    lines = [] if tokenizer is None else [original_ids(tokenizer, line)
                                          for line in SAMPLE_LINES[:2]]
    return parity.sample_paths(metadata.vocabulary_size, windows=metadata.windows,
                               max_positions=metadata.max_positions, lines=lines,
                               start=metadata.bos_token_id)


def _read_truecaser(path: str | os.PathLike[str] | None) -> dict[str, str | bytes]:
    if path is None:
        return {}
    content = Path(path).read_bytes()
    Truecaser(content, compat=False)  # refuses anything else
    return {"truecaser": content}
