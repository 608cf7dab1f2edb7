"""LoRA adapters, merged into the weights of a copy and compared with the unmerged model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lmfusion.errors import ExportError
from lmfusion.exporter.probes import differ, logits_of, probe_ids
from lmfusion.exporter.replica import float32_replica


def merged_with_lora(model: PreTrainedModel, lora: Path | None, *,
                     owned: bool = False) -> PreTrainedModel:
    """A model whose LoRA adapters are merged into its weights; the given model is not changed.

    Args:
        model: a transformers model, or a peft model around one, with its active adapters.
        lora: folder of an adapter, or None.
        owned: nobody else has `model`; what `lora` changes may be changed in it.

    Returns:
        `model` itself where there is nothing to merge, else a float32 copy.

    Raises:
        ExportError: peft is not installed, the adapter does not fit, or the merged model does not
            say what the model with its adapters says.
    """
    if hasattr(model, "get_base_model"):  # of a peft model
        _must_be_weights(model)
        model = _merged(float32_replica(model, own_weights=True))
    elif getattr(model, "_hf_peft_config_loaded", False):
        raise ExportError("the adapters of this model were put in by transformers (add_adapter, "
                          "load_adapter); give the model without them and their folder as lora=, "
                          "or a model of peft.PeftModel.from_pretrained")
    if lora is None:
        return model
    try:
        import peft
    except ImportError as error:
        raise ExportError("LoRA adapters need the package peft: pip install peft") from error
    copy = float32_replica(model, own_weights=not owned)
    try:
        adapted = peft.PeftModel.from_pretrained(copy, str(lora))
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        advice = (" An adapter that was trained with added tokens needs a model with as many: "
                  "model.resize_token_embeddings(N), with the adapter's tokenizer, then export "
                  "with this adapter." if "size mismatch" in str(error) else "")
        raise ExportError(f"The adapter {lora} does not fit {type(model).__name__}: "
                          f"{error}.{advice}") from error
    _must_be_weights(adapted)
    return _merged(adapted)


def _must_be_weights(adapted: Any) -> None:
    """Refuses prompts and prefixes, which are vectors before a text and no part of any weight."""
    kinds = sorted({str(getattr(settings.peft_type, "value", settings.peft_type))
                    for settings in adapted.peft_config.values()})
    if not hasattr(adapted, "merge_and_unload"):
        raise ExportError(f"an adapter of the kind {', '.join(kinds)} is no change of weights but "
                          "vectors before every text; it cannot be merged, and tree attention has "
                          "no place for it. Give the prompt as text (prompt=), or train LoRA.")


def _merged(adapted: Any) -> PreTrainedModel:
    adapted.eval()
    _untie(adapted.get_base_model())
    ids = probe_ids(adapted.get_base_model(), 2)
    wanted = logits_of(adapted, ids)
    try:
        merged = adapted.merge_and_unload().eval()
    except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
        raise ExportError(f"the adapters of {type(adapted.get_base_model()).__name__} cannot be "
                          f"merged: {error}") from error
    if differ(wanted, logits_of(merged, ids)):
        raise ExportError(
            f"merging the adapters into {type(merged).__name__} changes what it says (adapters "
            f"{', '.join(adapted.peft_config)}, active {adapted.active_adapters}): they cannot be "
            "merged exactly. Merge them yourself, compare, and export the merged model.")
    return merged


def _untie(model: PreTrainedModel) -> None:
    """Gives the output matrix weights of its own where an adapter changes it or the embeddings.

    Both are one tensor in tied models; what is merged into one would change the other too.
    """
    embeddings: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    if head is None:
        return
    adapted = [hasattr(layer, "base_layer") or hasattr(layer, "modules_to_save")
               for layer in (embeddings, head)]
    base = getattr(head, "base_layer", head)
    if not any(adapted) or base.weight is not getattr(embeddings, "base_layer", embeddings).weight:
        return
    base.weight = torch.nn.Parameter(base.weight.detach().clone(), requires_grad=False)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
