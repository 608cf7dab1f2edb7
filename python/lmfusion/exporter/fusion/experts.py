"""Mixtures of experts: a router's logits choose some of many gated MLPs for every token."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

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

    def forward(self, x: torch.Tensor, *_: object) -> torch.Tensor | tuple[torch.Tensor, None]:
        """In place of experts without their router, they are called with its choice, too."""
        result = super().forward(x)
        return (result, None) if self.in_tuple and isinstance(result, torch.Tensor) else result

    router_weight: torch.Tensor

    def compute(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        logits = torch.ops.lmfusion.linear(x, self.router_weight, self.router_bias)
        return torch.ops.lmfusion.experts(
            x, logits, self.gate_up_weight, self.gate_up_bias, self.down_weight, self.down_bias,
            residual, self.activation, self.router_weight.shape[0], self.top_k, self.normalized)


Matrix = tuple[torch.Tensor, torch.Tensor | None]
Probe = tuple[torch.Tensor, object]  # what a module was called with, what it returned


@dataclass(frozen=True)
class Block:
    """A module with experts and what may be their router."""

    name: str  # of the experts in it
    experts: torch.nn.Module
    gate_up: Matrix  # as the module has them: [experts, .., ..], [experts, ..]
    down: Matrix
    router: Matrix  # [experts, hidden], [experts]
    chooser: torch.nn.Module  # the child that is or holds the router


def read_experts(module: torch.nn.Module) -> Experts | None:
    """The experts that a module computes, its router among them, if it computes nothing else."""
    for block in _blocks(module):
        probes = [(x, result) for x, result, _ in _probes(module, block)]
        found = _fitted(module, block, probes)
        if found is not None:
            return found
    return None


def replace_inner_experts(module: torch.nn.Module) -> torch.nn.Module | None:
    """Replaces the experts in a module that computes more: a shared expert, say.

    Returns:
        The child that chose among the experts, which need no choice any more: what it computes is
        not read. None where nothing was replaced.
    """
    for block in _blocks(module):
        found = _fitted(module, block, [probe for _, _, probe in _probes(module, block)])
        if found is not None:
            setattr(module, block.name, found)
            return block.chooser
    return None


def _blocks(module: torch.nn.Module) -> Iterator[Block]:
    inner = {name: child for name, child in module.named_children() if any(
        parameter.dim() == 3 for parameter in child.parameters(recurse=False))}
    if len(inner) != 1:
        return
    (name, experts), = inner.items()
    gate_up, down = (getattr(experts, part, None) for part in ("gate_up_proj", "down_proj"))
    if not (isinstance(gate_up, torch.Tensor) and isinstance(down, torch.Tensor)):
        return
    first = gate_up, getattr(experts, "gate_up_proj_bias", None)
    last = down, getattr(experts, "down_proj_bias", None)
    for chooser in module.children():
        for router in chooser.modules():
            weight = getattr(router, "weight", None)
            if (chooser is not experts and isinstance(weight, torch.Tensor) and weight.dim() == 2
                    and weight.shape[0] == gate_up.shape[0]):
                yield Block(name, experts, first, last, (weight, getattr(router, "bias", None)),
                            chooser)


def _probes(module: torch.nn.Module, block: Block) -> list[tuple[torch.Tensor, object, Probe]]:
    """What the module is called with and returns, and what its experts are and do."""
    calls: list[Probe] = []
    hook = block.experts.register_forward_hook(
        lambda _, arguments, result: calls.append((arguments[0], result)))
    probes = []
    try:
        for rows, scale in PROBES:
            x = scale * torch.randn(1, rows, block.router[0].shape[1],
                                    generator=torch.Generator().manual_seed(rows))
            result = module(x)
            probes.append((x, result, calls[-1]))
    except Exception:  # a module of the model, called with what may not be meant for it
        return []
    finally:
        hook.remove()
    return probes


def _fitted(module: torch.nn.Module, block: Block, probes: list[Probe]) -> Experts | None:
    """The experts that do what was seen, if there are any."""
    if not probes:
        return None
    in_tuple = isinstance(probes[0][1], tuple)
    results = [(x, wanted[0] if isinstance(wanted, tuple) else wanted) for x, wanted in probes]
    for weights, (activation, top_k, normalized) in itertools.product(
            _layouts(block.gate_up, block.down, block.router[0].shape),
            itertools.product(ACTIVATIONS, _counts(module, block.chooser), (True, False))):
        part = Experts(block.router, *weights, activation=activation, top_k=top_k,
                       normalized=normalized, in_tuple=in_tuple)
        if all(isinstance(wanted, torch.Tensor) and equal(part.compute(x), wanted)
               for x, wanted in results):
            return part
    return None


def _layouts(gate_up_proj: Matrix, down_proj: Matrix, router: torch.Size
             ) -> Iterator[tuple[Matrix, Matrix]]:
    """The matrices of all experts, whichever way round they may be, gate and up in turn or not."""
    (gate_up, up_bias), (down, down_bias) = gate_up_proj, down_proj
    count, hidden = router
    for transposed in (False, True):
        first, last = (gate_up.mT, down.mT) if transposed else (gate_up, down)
        if (first.shape[0] != count or first.shape[2] != hidden
                or last.shape != (count, hidden, first.shape[1] // 2)):
            continue
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
