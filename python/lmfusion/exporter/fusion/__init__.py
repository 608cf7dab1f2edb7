"""Fused operators in place of a model's own code, before it is traced.

Modules whose formula is known are replaced (norms.py, projections.py, experts.py); what stands
between them is recognised by its numbers (rotation.py, attention.py, gates.py, residuals.py). Every
replacement is confirmed on random inputs of several sizes; what cannot be confirmed is traced as
it is. Note [Parts and glue] in parts.py says how.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from transformers import AttentionInterface, PreTrainedModel

from lmfusion.exporter.architecture import decoder_of
from lmfusion.exporter.fusion.experts import read_experts, replace_inner_experts
from lmfusion.exporter.fusion.norms import read_norm
from lmfusion.exporter.fusion.parts import (
    Part,
    anchor_layers,
    current_flow,
    record,
    record_pass,
    watch_angles,
)
from lmfusion.exporter.fusion.plan import Plan, make_plan
from lmfusion.exporter.fusion.projections import read_projection
from lmfusion.exporter.replica import set_implementations, traceable_experts

ATTENTION = "lmfusion_flow"
PROBE_TOKENS = 17  # no usual number of heads


def fuse(model: PreTrainedModel, type_of: Callable[[torch.Tensor], str]) -> Plan:
    """Replaces parts of a model, and finds how to compute what is between them.

    Args:
        model: a float32 replica, rotary frequencies fixed. It is changed, its attention
            implementation too, and runs only in a flow (see parts.py) from then on.
        type_of: how a weight [out, in] will be stored, for example "bfloat16".
    """
    AttentionInterface.register(ATTENTION, _attention)
    set_implementations(model, attention=ATTENTION, experts=traceable_experts(model))
    _replace(model, read_experts)
    unread = _replace_inner_experts(model)
    _replace(model, lambda module: None if module in unread else read_projection(module))
    shapes = _shapes_of_calls(model)
    _replace(model, lambda module: read_norm(module, shapes[module]) if module in shapes else None)
    watch_angles(model)
    anchor_layers(model)
    return make_plan(record(model), type_of)


def _replace(model: PreTrainedModel, read: Callable[[torch.nn.Module], Part | None]) -> None:
    """Replaces the outermost modules of the decoder that `read` knows."""
    known: dict[torch.nn.Module, Part | None] = {}
    open_modules = [decoder_of(model)]
    with torch.no_grad():
        while open_modules:
            module = open_modules.pop()
            for name, child in list(module.named_children()):
                if child not in known:
                    known[child] = None if isinstance(child, Part) else read(child)
                part = known[child]
                if part is not None:
                    setattr(module, name, part)
                elif not isinstance(child, Part):
                    open_modules.append(child)


def _replace_inner_experts(model: PreTrainedModel) -> set[torch.nn.Module]:
    """Returns the modules whose results are not read any more."""
    with torch.no_grad():
        choosers = [None if isinstance(module, Part) else replace_inner_experts(module)
                    for module in list(decoder_of(model).modules())]
    return {module for chooser in choosers if chooser is not None for module in chooser.modules()}


def _shapes_of_calls(model: PreTrainedModel) -> dict[torch.nn.Module, torch.Size]:
    """What modules without parts in them are called with, if it is one tensor of numbers."""
    shapes: dict[torch.nn.Module, torch.Size] = {}

    def note(module: torch.nn.Module, arguments: tuple[object, ...]) -> None:
        if (len(arguments) == 1 and isinstance(arguments[0], torch.Tensor)
                and arguments[0].is_floating_point()):
            shapes[module] = arguments[0].shape

    hooks = [module.register_forward_pre_hook(note) for module in decoder_of(model).modules()
             if not any(isinstance(each, Part) for each in module.modules())]
    with contextlib.suppress(Exception):  # of the model's own code: what was seen before serves
        record_pass(model, PROBE_TOKENS, scale=1.0, seed=0)
    for hook in hooks:
        hook.remove()
    return shapes


def _attention(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor,
               value: torch.Tensor, attention_mask: torch.Tensor | None, *,
               scaling: float | None = None, softcap: float | None = None,
               s_aux: torch.Tensor | None = None, **_: object) -> tuple[torch.Tensor, None]:
    """The attention function: query, key, value [1, heads, T, head_dim] -> [1, T, heads, head_dim].

    `attention_mask` is None; the plan of the batch takes its place.
    """
    result = current_flow().attend(module, query, key, value, scaling, softcap, s_aux)
    return result, None
