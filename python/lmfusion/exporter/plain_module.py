"""The plain form of a model, for those that tree attention cannot hold: ids, mask -> logits."""

from __future__ import annotations

import inspect
import warnings

import torch
from torch.jit._trace import TracerWarning
from transformers import PreTrainedModel

from lmfusion.errors import ExportError
from lmfusion.exporter.replica import set_implementations, traceable_experts
from lmfusion.exporter.traceable import traceable_parts


class PlainModule(torch.nn.Module):
    """A causal language model over a padded batch, without a cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of every position.

        Args:
            ids: [B, T] int64; anything valid where padded.
            mask: [B, T], 1 at tokens, 0 at padding, on either side.

        Returns:
            [B, T, vocabulary] float32; of no meaning where padded.
        """
        mask = mask.to(torch.int64)
        positions = {}
        if self.takes_positions:
            positions["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return self.model(input_ids=ids, attention_mask=mask, use_cache=False, **positions).logits


def trace_plain_module(model: PreTrainedModel) -> torch.jit.ScriptModule:
    """Traces the plain form; whether it holds at other sizes is for `check_plain` to say.

    Raises:
        ExportError: transformers' code cannot be traced at all.
    """
    set_implementations(model, attention="eager", experts=traceable_experts(model))
    ids = torch.arange(12).view(2, 6)
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    with torch.no_grad(), warnings.catch_warnings(), traceable_parts(model):
        warnings.simplefilter("ignore", category=TracerWarning)
        try:
            return torch.jit.trace(PlainModule(model).eval(), (ids, mask), check_trace=False)
        except Exception as error:
            raise ExportError(f"{type(model).__name__} cannot be traced: "
                              f"{type(error).__name__}: {error}") from error
