"""Where models come from: Hugging Face folders, GGUF files, and LoRA adapters on top."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lmfusion.errors import ExportError
from lmfusion.exporter.gguf_tokenizer import gguf_tokenizer

# What transformers raises for files that are damaged, missing, or of something else.
UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, SafetensorError,
              struct.error)


def load_model(path: Path) -> PreTrainedModel:
    """Loads a causal language model in float32 from a folder or a .gguf file.

    Raises:
        ExportError: it is no model, an encoder-decoder, transformers cannot read it, or weights
            are missing.
    """
    if path.suffix == ".gguf":
        return _load_gguf(path)
    if path.is_file():
        raise ExportError(f"{path} is a file; the folder around it, with config.json and weights, "
                          "or a .gguf file expected")
    if not (path / "config.json").is_file():
        raise ExportError(f"{path} has no config.json; a folder of Hugging Face (config.json, "
                          "tokenizer files, *.safetensors) or a .gguf file is expected")
    with _told(f"{path} is not a causal language model that transformers can read: "):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        refuse_encoder_decoder(config)
        return _whole(path)


def load_tokenizer(path: Path, gguf_pre: str | None = None) -> PreTrainedTokenizerBase:
    """Loads the tokenizer beside a model, or inside a .gguf file (`gguf_pre`: gguf_tokenizer.py).

    Raises:
        ExportError: there is none, or the GGUF has one of an unknown kind.
    """
    if path.suffix == ".gguf":
        return gguf_tokenizer(path, gguf_pre)
    with _told(f"No tokenizer could be read from {path}: ",
               ". Export without one: tokenizer=False, or --no-tokenizer on the command line."):
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)


@contextlib.contextmanager
def _told(before: str, after: str = "") -> Iterator[None]:
    """What transformers cannot read is an ExportError: `before`, its reason, `after`."""
    try:
        yield
    except ExportError:
        raise
    except UNREADABLE as error:
        raise ExportError(f"{before}{_reason(error)}{after}") from error


def _reason(error: Exception) -> str:
    """What transformers says, in one line; its way out for code in a folder is not ours."""
    if "trust_remote_code" in str(error):
        return ("it needs code of its own folder, which is never run here; load it yourself and "
                "give the live model to lmfusion.from_hf or lmfusion.export")
    return " ".join(f"{type(error).__name__}: {error}".split())


def _whole(path: Path) -> PreTrainedModel:
    """Of a folder or .gguf file; none that transformers filled up with random numbers
    (ExportError)."""
    of_file = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path.parent if of_file else path, dtype=torch.float32, attn_implementation="eager",
        trust_remote_code=False, output_loading_info=True, **of_file)
    model, found = loaded
    missing = sorted(map(str, found["missing_keys"]))
    if missing:
        raise ExportError(
            f"{path} has no {missing[0]}"
            + (f", nor {len(missing) - 1} other weights" if len(missing) > 1 else "")
            + f" of {type(model).__name__}, which would be random numbers; get all of its files")
    return model


def check_model(model: object) -> None:
    """Refuses what is no live model.

    Raises:
        TypeError: says what to give instead.
    """
    if hasattr(model, "config") and isinstance(model, torch.nn.Module):
        return
    inner = getattr(model, "module", getattr(model, "model", None))
    advice = (" (its .module or .model is one)" if hasattr(inner, "config") else
              "; lmfusion.LMFusionScorer.from_pretrained opens names, folders and files"
              if isinstance(model, (str, Path)) else "")
    raise TypeError(f"model: {type(model).__name__} found; a causal language model of transformers "
                    f"expected{advice}")


def refuse_encoder_decoder(config: object) -> None:
    """Raises ExportError for encoder-decoders: their logits need a second input."""
    if getattr(config, "is_encoder_decoder", False):
        raise ExportError(
            f"{type(config).__name__} describes an encoder-decoder: its next-word probabilities "
            "need an encoder input, which a scorer of texts does not have, cached or not. Export "
            "a decoder-only model instead.")


def _load_gguf(path: Path) -> PreTrainedModel:
    with _told(f"transformers cannot read {path.name}: ",
               ". Export the model's Hugging Face folder instead."):
        model = _whole(path)
    # The weights are dequantized by now; what says otherwise would travel with every copy.
    settings = model.config.to_dict()
    for entry in ("quantization_config", "loss_type"):
        settings.pop(entry, None)
    config = type(model.config).from_dict(settings, attn_implementation="eager")
    plain = type(model)._from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain.eval()
