"""Norms over the last dimension, RMS or layer norm, whatever their module is called."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from lmfusion.exporter.fusion.parts import Part, equal

PROBE_SCALES = (1e-3, 1.0, 40.0)


class Norm(Part):
    """(x - mean) / sqrt(variance + epsilon) * weight + bias; the mean is 0 unless `centered`.

    weight: [width], or [heads, width] for x [.., tokens, heads, width]; None: 1. bias: [width].
    """

    weight: torch.nn.Parameter | None
    bias: torch.nn.Parameter | None

    def __init__(self, weight: torch.Tensor | None, bias: torch.Tensor | None, epsilon: float,
                 centered: bool, *, heads_first: bool = False) -> None:
        super().__init__()
        for name, tensor in (("weight", weight), ("bias", bias)):
            setattr(self, name, None if tensor is None else torch.nn.Parameter(
                tensor.detach().clone(), requires_grad=False))
        self.epsilon = epsilon
        self.centered = centered
        self.heads_first = heads_first  # x is [.., heads, tokens, width]

    def compute(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        if self.weight is None or self.weight.dim() == 1:
            return torch.ops.lmfusion.normalize(x, self.weight, self.bias, residual, self.epsilon,
                                                self.centered)
        weight = self.weight.unsqueeze(1) if self.heads_first else self.weight
        return weight * torch.ops.lmfusion.normalize(x, None, None, None, self.epsilon,
                                                     self.centered)


def read_norm(module: torch.nn.Module, shape: torch.Size) -> Norm | None:
    """The norm that a module computes, if it computes one.

    Args:
        shape: of what it is called with, in which the dimension of tokens may have any size.
    """
    generator = torch.Generator().manual_seed(shape[-1])
    probes = [scale * (torch.randn(shape, generator=generator) + 0.3) for scale in PROBE_SCALES]
    try:
        wanted = [module(probe.clone()) for probe in probes]
    except Exception:  # a module of the model, called with what may not be meant for it
        return None
    if any(not isinstance(each, torch.Tensor) or each.shape != shape for each in wanted):
        return None
    for weight, bias, heads_first in _vectors(module, shape):
        for centered in (False, True):
            epsilon = _epsilon(module, probes[0], wanted[0], weight, bias, centered, heads_first)
            if epsilon is None:
                continue
            norm = Norm(weight, bias, epsilon, centered, heads_first=heads_first)
            if all(equal(norm.compute(probe), want) for probe, want in zip(probes, wanted)):
                return norm
    return None


def _vectors(module: torch.nn.Module, shape: torch.Size
             ) -> Iterator[tuple[torch.Tensor | None, torch.Tensor | None, bool]]:
    """What may be the weight and the bias of a norm, and whether heads come before tokens."""
    width = shape[-1]
    parameters = list(module.parameters())
    if not parameters:
        yield None, None, False
        return
    of_each_head: torch.Tensor | None = None
    if all(each.shape == (width,) for each in parameters):
        if len(parameters) <= 2:
            weight, bias = parameters[0], parameters[1] if len(parameters) == 2 else None
            yield weight, bias, False
            yield 1 + weight, bias, False  # Gemma
        of_each_head = torch.stack([*parameters])  # a norm for each: StableLM
    elif len(parameters) == 1 and parameters[0].dim() == 2 and parameters[0].shape[1] == width:
        of_each_head = parameters[0]  # Cohere
    if of_each_head is not None and len(shape) > 2:
        for heads_first, dimension in ((False, -2), (True, -3)):
            if shape[dimension] == len(of_each_head):
                yield of_each_head, None, heads_first


def _epsilon(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor,
             weight: torch.Tensor | None, bias: torch.Tensor | None, centered: bool,
             heads_first: bool) -> float | None:
    """The epsilon that explains y, which matters where x is small; as the module writes it, if it
    does."""
    deviation = x.double() - (x.double().mean(-1, keepdim=True) if centered else 0)
    scaled = y.double() if bias is None else y.double() - bias
    if weight is not None:
        scaled = scaled / (weight.unsqueeze(1) if heads_first else weight)
    # Of each row: 1 / sqrt(variance + epsilon)
    ratios = (scaled * deviation).sum(-1) / deviation.square().sum(-1)
    epsilon = float((ratios.pow(-2) - deviation.square().mean(-1)).median())
    if not math.isfinite(epsilon) or bool((ratios <= 0).any()):
        return None
    epsilon = max(epsilon, 0.0)
    written = [value for value in vars(module).values() if isinstance(value, float)]
    written += [value for child in module.children() for value in vars(child).values()
                if isinstance(value, float)]
    near = [value for value in written if abs(value - epsilon) <= 1e-2 * epsilon + 1e-12]
    return near[0] if near else epsilon
