"""A float32 copy of a model that leaves the caller's model alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PreTrainedModel


def float32_replica(model: PreTrainedModel, *, own_weights: bool = False) -> PreTrainedModel:
    """Copies a model's modules and configuration, in evaluation mode, on the CPU, in float32.

    Weights that are float32 on the CPU already are shared with `model`, not copied, so a
    second replica of a large model costs next to nothing; tied weights stay tied.

    Args:
        model: any transformers model. It is not changed.
        own_weights: copy every weight, for a replica whose weights will be written to.

    Returns:
        A model of the same class; no parameter requires a gradient.
    """
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        tensor = _on_cpu(parameter.detach())
        if own_weights and tensor.data_ptr() == parameter.data_ptr():
            tensor = tensor.clone()
        memo[id(parameter)] = torch.nn.Parameter(tensor, requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = _on_cpu(buffer.detach()).clone()
    replica = copy.deepcopy(model, memo)
    replica.eval()
    return replica


def set_implementations(model: PreTrainedModel, *, attention: str, experts: str) -> None:
    """Chooses the attention and mixture-of-experts functions of a model and its submodels.

    transformers looks both names up at every call. Models that do not ask (Bloom, Mamba) are
    left as they are, without the warning that `set_attn_implementation` gives.
    """
    configs: dict[int, Any] = {id(module.config): module.config for module in model.modules()
               if hasattr(module, "config") and hasattr(module.config, "_attn_implementation")}
    for config in configs.values():
        config._attn_implementation = attention
        config._experts_implementation = experts


def traceable_experts(model: PreTrainedModel) -> str:
    """The mixture-of-experts function whose trace holds for any tokens and any routing.

    transformers' own loop over the experts that were hit would be unrolled for the traced tokens.
    "grouped_mm" sorts tokens by expert with tensor operators alone; its kernel wants rows of a
    multiple of 16 bytes. Where they are not, "batched_mm" copies the weights of every token's
    experts: right, but slow.
    """
    experts = [parameter for parameter in model.parameters() if parameter.dim() == 3]
    aligned = all(size % 4 == 0 for parameter in experts for size in parameter.shape[1:])
    return "grouped_mm" if aligned else "batched_mm"


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.to(device="cpu", dtype=dtype)
