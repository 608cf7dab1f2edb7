"""Mixtures of experts: a router's logits choose some of many gated MLPs for every token."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from lmfusion.exporter.fusion.parts import Part, equal

# clamped_silu is gpt-oss's; see src/ops/definitions/gate.cpp
ACTIVATIONS = ("silu", "gelu_tanh", "gelu", "relu", "clamped_silu")
PROBES = ((2, 1.0), (7, 1.0), (7, 12.0))  # rows, magnitude


class Experts(Part):
    """Router and experts. Matrices of all experts lie one below the other."""

    def __init__(self, router: tuple[torch.Tensor, torch.Tensor | None],
                 gate_up: tuple[torch.Tensor, torch.Tensor | None],
                 down: tuple[torch.Tensor, torch.Tensor | None], *, activation: str, top_k: int,
                 normalized: bool, in_tuple: bool) -> None:
        """Copies no matrix that is laid out like this already.

        Args:
            router: weight [experts, hidden] and bias [experts].
            gate_up: [experts * 2 * inner, hidden] and [experts * 2 * inner], of each expert first
                the gate.
            down: [experts * hidden, inner] and [experts * hidden].
            normalized: the weights of a token's experts sum to 1.
            in_tuple: the replaced module returned more than the hidden states.
        """
        super().__init__()
        for name, (weight, bias) in (("router", router), ("gate_up", gate_up), ("down", down)):
            for kind, tensor in (("weight", weight), ("bias", bias)):
                setattr(self, f"{name}_{kind}", None if tensor is None else torch.nn.Parameter(
                    tensor.contiguous(), requires_grad=False))
        self.activation = activation
        self.top_k = top_k
        self.normalized = normalized
        self.in_tuple = in_tuple

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, None]:
        result = super().forward(x)
        return (result, None) if self.in_tuple and isinstance(result, torch.Tensor) else result

    router_weight: torch.Tensor

    def compute(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        logits = torch.ops.lmfusion.linear(x, self.router_weight, self.router_bias)
        return torch.ops.lmfusion.experts(
            x, logits, self.gate_up_weight, self.gate_up_bias, self.down_weight, self.down_bias,
            residual, self.activation, self.router_weight.shape[0], self.top_k, self.normalized)


def read_experts(module: torch.nn.Module) -> Experts | None:
    """The experts that a module computes, its router among them, if it computes nothing else."""
    inner = [child for child in module.children() if any(
        parameter.dim() == 3 for parameter in child.parameters(recurse=False))]
    routers = [child for child in module.children() if child not in inner
               and getattr(child, "weight", None) is not None]
    if len(inner) != 1 or len(routers) != 1:
        return None
    experts, router = inner[0], routers[0]
    gate_up, down = getattr(experts, "gate_up_proj", None), getattr(experts, "down_proj", None)
    if not (isinstance(gate_up, torch.Tensor) and isinstance(down, torch.Tensor)
            and isinstance(router.weight, torch.Tensor) and router.weight.dim() == 2):
        return None
    chooser = router.weight, getattr(router, "bias", None)
    probes = []
    try:
        for rows, scale in PROBES:
            x = scale * torch.randn(1, rows, chooser[0].shape[1],
                                    generator=torch.Generator().manual_seed(rows))
            probes.append((x, module(x)))
    except Exception:  # a module of the model, called with what may not be meant for it
        return None
    in_tuple = isinstance(probes[0][1], tuple)
    probes = [(x, wanted[0] if in_tuple else wanted) for x, wanted in probes]
    biases = (getattr(experts, "gate_up_proj_bias", None), getattr(experts, "down_proj_bias", None))
    for weights, (activation, top_k, normalized) in itertools.product(
            _layouts(gate_up, down, biases, chooser[0].shape),
            itertools.product(ACTIVATIONS, _counts(module, router), (True, False))):
        part = Experts(chooser, *weights, activation=activation, top_k=top_k,
                       normalized=normalized, in_tuple=in_tuple)
        if all(equal(part.compute(x), wanted) for x, wanted in probes):
            return part
    return None


Matrix = tuple[torch.Tensor, torch.Tensor | None]


def _layouts(gate_up: torch.Tensor, down: torch.Tensor,
             biases: tuple[torch.Tensor | None, torch.Tensor | None], router: torch.Size
             ) -> Iterator[tuple[Matrix, Matrix]]:
    """The matrices of all experts, whichever way round they may be, gate and up in turn or not."""
    count, hidden = router
    for transposed in (False, True):
        first, last = (gate_up.mT, down.mT) if transposed else (gate_up, down)
        if (first.shape[0] != count or first.shape[2] != hidden
                or last.shape != (count, hidden, first.shape[1] // 2)):
            continue
        up_bias, down_bias = biases
        for order in (_as_it_is, _in_turn):
            yield ((order(first).flatten(0, 1),
                    None if up_bias is None else order(up_bias).flatten()),
                   (last.flatten(0, 1), None if down_bias is None else down_bias.flatten()))


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    """[experts, 2 * inner, ..]: all gates before all ups."""
    return tensor


def _in_turn(tensor: torch.Tensor) -> torch.Tensor:
    """The same, of gates and ups in turn."""
    return torch.cat((tensor[:, ::2], tensor[:, 1::2]), dim=1)


def _counts(*modules: torch.nn.Module) -> list[int]:
    """What may be the number of experts of a token."""
    return sorted({value for module in modules for name, value in vars(module).items()
                   if isinstance(value, int) and not isinstance(value, bool)
                   and "top_k" in name and value > 0})
