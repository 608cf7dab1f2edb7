"""Refusals by trying: models that look at later tokens, weights that are no numbers."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from lmfusion.errors import ExportError

PROBE_TOKENS = 16
PIECE = 1 << 22  # numbers looked at at once
SAME_LOGITS = 1e-3  # of the largest logit: another order of adding up, at most


def probe_ids(model: PreTrainedModel, rows: int) -> torch.Tensor:
    """[rows, tokens] of random ids that a model has and that it takes in one piece."""
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None) or PROBE_TOKENS
    generator = torch.Generator().manual_seed(7)
    return torch.randint(_vocabulary(model), (rows, min(PROBE_TOKENS, limit)), generator=generator)


def _vocabulary(model: PreTrainedModel) -> int:
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight.shape[0]


def logits_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """[rows, tokens, vocabulary] of the logits, float32.

    Raises:
        ExportError: the model gives none.
    """
    with torch.no_grad():
        logits = getattr(model(input_ids=ids), "logits", None)
    if logits is None or logits.dim() != 3:
        raise ExportError(f"{type(model).__name__} gives no logits, it has no output matrix: "
                          "load it with AutoModelForCausalLM.")
    return logits.float()


def differ(logits: torch.Tensor, others: torch.Tensor) -> bool:
    """By more than the noise of float32."""
    scale = max(1.0, float(logits.abs().max()))
    return not bool((logits - others).abs().max() <= SAME_LOGITS * scale)


def refuse_models_that_look_ahead(model: PreTrainedModel) -> None:
    """Raises ExportError where later tokens change the logits of earlier ones.

    Args:
        model: on the CPU, in float32, in evaluation mode.
    """
    ids = probe_ids(model, 1)
    changed = ids.clone()
    half = ids.shape[1] // 2
    changed[:, half:] = ids[:, half:].flip(1).add(1) % _vocabulary(model)
    if differ(logits_of(model, ids)[:, :half], logits_of(model, changed)[:, :half]):
        raise ExportError(
            f"{type(model).__name__} looks at later tokens: what it says of a token changes with "
            "the tokens after it, as in a masked language model. Its logits are no probabilities "
            "of next tokens. If its weights were trained as a causal model, load it with "
            "config.is_decoder = True (some classes look ahead even so); else take another model.")


def refuse_weights_that_are_no_numbers(model: PreTrainedModel) -> None:
    """Raises ExportError that names the first weight with a NaN or an infinity in it."""
    for name, weight in model.named_parameters():
        pieces = weight.detach().flatten().split(PIECE)
        if not weight.is_floating_point() or all(bool(torch.isfinite(each).all())
                                                 for each in pieces):
            continue
        rows = (~torch.isfinite(weight)).flatten(1).any(1) if weight.dim() > 1 else (
            ~torch.isfinite(weight))
        bad = rows.nonzero().flatten().tolist()
        raise ExportError(
            f"the weight {name} of {type(model).__name__} has NaN or infinity in {len(bad)} of its "
            f"{len(rows)} rows, the first at {bad[0]}. Every score may become NaN; load the model "
            "from an intact file, or set rows that no text uses (padding) to zero.")
