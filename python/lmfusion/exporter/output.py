"""The formula between a model's last hidden state and its logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from lmfusion.errors import ExportError
from lmfusion.exporter.architecture import WAY_OUT, decoder_of
from lmfusion.exporter.replica import set_implementations

PROBE_TOKENS = 8
TOLERANCE = 1e-4  # of the largest logit


@dataclass(frozen=True)
class OutputHead:
    """logits = cap(scale * (hidden @ weight.T + bias)), cap(x) = softcap * tanh(x / softcap)."""

    weight: torch.Tensor  # [vocabulary, hidden] float32, the model's own (often tied) parameter
    bias: torch.Tensor | None  # [vocabulary]
    scale: float
    softcap: float  # 0 = none

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, hidden] -> [N, vocabulary]: the definition, for checks only."""
        logits = self.scale * torch.nn.functional.linear(hidden, self.weight, self.bias)
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits


def read_output_head(model: PreTrainedModel) -> OutputHead:
    """Reads the output formula and confirms it against the model's own logits.

    Args:
        model: a float32 replica; its attention implementation is changed to eager.

    Raises:
        ExportError: there is no output matrix, or the logits are not of the known form.
    """
    name = type(model).__name__
    matrix = model.get_output_embeddings()
    if matrix is None or not isinstance(getattr(matrix, "weight", None), torch.Tensor):
        raise ExportError(f"{name} has no output matrix over a vocabulary: it is not a causal "
                          "language model. Load it with AutoModelForCausalLM.")
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite
    softcap = float(getattr(config, "final_logit_softcapping", None) or 0.0)  # Gemma 2
    configured = OutputHead(matrix.weight, getattr(matrix, "bias", None), scale, softcap)
    plain = OutputHead(matrix.weight, getattr(matrix, "bias", None), 1.0, 0.0)

    set_implementations(model, attention="eager", experts="eager")
    tokens = torch.arange(PROBE_TOKENS)[None] % matrix.weight.shape[0]
    with torch.no_grad():
        wanted = model(input_ids=tokens, use_cache=False).logits[0]
        hidden = decoder_of(model)(input_ids=tokens, use_cache=False)[0][0]
        for head in (configured, plain):
            if hidden.shape[-1] != head.weight.shape[-1]:
                continue
            difference = (head.logits(hidden) - wanted).abs().max()
            if difference <= TOLERANCE * wanted.abs().max().clamp(min=1.0):
                return head
    raise ExportError(f"{name}: the logits are not scale * (hidden . weight + bias) with an "
                      "optional soft cap, the only form the engine computes (scale "
                      f"{scale:g} and soft cap {softcap:g} by the configuration). {WAY_OUT}")
