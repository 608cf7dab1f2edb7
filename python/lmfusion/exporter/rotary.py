"""Rotary embeddings whose frequencies depend on the length of the text.

Note [Length-dependent rotary embeddings]
`rope_type` "dynamic" and "longrope" choose their frequencies by the longest position of a forward
pass. In a token tree there is no such thing: keys of one length would be read at another. But up
to the length the model was trained on both use one fixed set of frequencies (and `longrope` one
fixed attention scale). So that set is exported, and `max_positions` is lowered to that length:
below it the export is exact, and the scorer does not go beyond it. The other kinds (default,
linear, yarn, llama3, proportional) are the same at every length.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from lmfusion.errors import ExportError


def fix_rotary_frequencies(model: PreTrainedModel) -> int | None:
    """Fixes length-dependent rotary embeddings to their short form, in place.

    Args:
        model: the replica that will be traced.

    Returns:
        The number of positions for which the fixed frequencies are the model's own, or None
        where nothing depended on the length.

    Raises:
        ExportError: the configuration asks for such an embedding, but no module of the known
            form has it.
    """
    limits: list[int] = []
    module: Any  # attributes that torch does not know
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        if isinstance(kinds, str):
            if _depends_on_length(kinds):
                limits.append(_fix(module, kinds, None))
                module.rope_type = "default"
        elif isinstance(kinds, dict):
            for layer_type, kind in kinds.items():
                if _depends_on_length(kind):
                    limits.append(_fix(module, kind, layer_type))
            module.rope_type = {layer_type: "default" if _depends_on_length(kind) else kind
                                for layer_type, kind in kinds.items()}
    wanted = _configured_kinds(model)
    if any(map(_depends_on_length, wanted)) and not limits:
        raise ExportError(f"{type(model).__name__} has rotary embeddings of type "
                          f"{', '.join(sorted(wanted))}, whose frequencies depend on the length "
                          "of the text, in a module that cannot be fixed to one length. It cannot "
                          "be exported; a checkpoint with static frequencies (yarn, llama3) can.")
    return min(limits) if limits else None


def _depends_on_length(kind: str) -> bool:
    return "dynamic" in kind or kind == "longrope"


def _configured_kinds(model: PreTrainedModel) -> set[str]:
    parameters = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    each = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    return {str(entry["rope_type"]) for entry in each if "rope_type" in entry}


def _fix(module: Any, kind: str, layer_type: str | None) -> int:
    """Restores the frequencies of a module's short form; returns the positions it holds for."""
    prefix = "" if layer_type is None else f"{layer_type}_"
    setattr(module, f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq").clone())
    if kind == "longrope":
        parameters = module.config.rope_parameters
        if layer_type is not None:
            parameters = parameters[layer_type]
        return int(parameters["original_max_position_embeddings"])
    return int(module.original_max_seq_len)
