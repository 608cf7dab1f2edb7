"""Where models come from: Hugging Face folders, GGUF files, and LoRA adapters on top."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lmfusion.errors import ExportError
from lmfusion.exporter.gguf_tokenizer import gguf_tokenizer


def load_model(path: Path) -> PreTrainedModel:
    """Loads a causal language model in float32 from a folder or a .gguf file.

    Raises:
        ExportError: it is no model, an encoder-decoder, or transformers cannot read it.
    """
    if path.suffix == ".gguf":
        return _load_gguf(path)
    if not (path / "config.json").is_file():
        raise ExportError(f"{path} has no config.json; a folder of Hugging Face (config.json, "
                          "tokenizer files, *.safetensors) or a .gguf file is expected")
    config = AutoConfig.from_pretrained(path)
    refuse_encoder_decoder(config)
    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32,
                                                    attn_implementation="eager")
    except ValueError as error:
        raise ExportError(f"{path} is not a causal language model that transformers can read: "
                          f"{error}") from error


def load_tokenizer(path: Path, gguf_pre: str | None = None) -> PreTrainedTokenizerBase:
    """Loads the tokenizer beside a model, or inside a .gguf file (`gguf_pre`: gguf_tokenizer.py).

    Raises:
        ExportError: there is none, or the GGUF has one of an unknown kind.
    """
    if path.suffix == ".gguf":
        return gguf_tokenizer(path, gguf_pre)
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ExportError(f"No tokenizer could be read from {path}: {error}. Export without one: "
                          "tokenizer=False, or --no-tokenizer on the command line.") from error


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
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager")
    except (ValueError, NotImplementedError) as error:
        raise ExportError(f"transformers cannot read {path.name}: {error}. Export the model's "
                          "Hugging Face folder instead.") from error
    # The weights are dequantized by now; what says otherwise would travel with every copy.
    settings = model.config.to_dict()
    for entry in ("quantization_config", "loss_type"):
        settings.pop(entry, None)
    config = type(model.config).from_dict(settings, attn_implementation="eager")
    plain = type(model)._from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain.eval()
