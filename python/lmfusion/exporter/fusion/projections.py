"""Products with a weight. Those that read the same hidden states are stacked to one product."""

from __future__ import annotations

import torch
from torch.nn import functional

from lmfusion.exporter.fusion.parts import Part, equal

PROBE_ROWS = (2, 5)
PROBE_SCALES = (1.0, 100.0)


class Projection(Part):
    """x . weight^T + bias, whichever way round the replaced module had its weight.

    `weight` [out, in] and `bias` [out] are those of the stack that the projection is the first of,
    or its own; the others of a stack hold none.
    """

    weight: torch.nn.Parameter | None
    bias: torch.nn.Parameter | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.width = weight.shape[0]
        self.set(weight, bias)

    def set(self, weight: torch.Tensor | None, bias: torch.Tensor | None) -> None:
        self.weight = _parameter(weight)
        self.bias = _parameter(bias)

    def own_weight(self) -> torch.Tensor:
        """The weight of a projection that is in no stack, or the first of one."""
        assert self.weight is not None
        return self.weight

    def reorder(self, order: list[int]) -> None:
        """Puts the outputs in another order: `order` has the numbers of as many equal blocks."""
        def reordered(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.unflatten(0, (len(order), -1))[order].flatten(0, 1)

        self.set(reordered(self.own_weight()), None if self.bias is None else reordered(self.bias))

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.lmfusion.linear(x, self.weight, self.bias)

    def result_shape(self, x: torch.Tensor) -> torch.Size:
        return torch.Size((*x.shape[:-1], self.width))


def read_projection(module: torch.nn.Module) -> Projection | None:
    """The projection that a module without children computes, if it computes one."""
    parameters = dict(module.named_parameters())
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if (isinstance(module, torch.nn.Embedding) or list(module.children())
            or weight is None or weight.dim() != 2 or set(parameters) - {"weight", "bias"}):
        return None
    for matrix in (weight, weight.T):
        if bias is not None and bias.shape != matrix.shape[:1]:
            continue
        if all(_computes(module, matrix, bias, rows, scale)
               for rows in PROBE_ROWS for scale in PROBE_SCALES):
            return Projection(matrix.contiguous() if matrix is not weight else weight, bias)
    return None


def stack(projections: list[Projection]) -> list[int]:
    """Makes the first of some projections hold the weights of all; returns where each begins."""
    begins, end = [], 0
    for projection in projections:
        begins.append(end)
        end += projection.width
    weights = [projection.own_weight() for projection in projections]
    biases = [projection.bias for projection in projections]
    bias = None
    if any(each is not None for each in biases):
        bias = torch.cat([torch.zeros(projection.width) if projection.bias is None
                          else projection.bias for projection in projections])
    projections[0].set(torch.cat(weights), bias)
    for projection in projections[1:]:
        projection.set(None, None)
    return begins


def _computes(module: torch.nn.Module, weight: torch.Tensor, bias: torch.Tensor | None, rows: int,
              scale: float) -> bool:
    generator = torch.Generator().manual_seed(rows)
    x = scale * torch.randn(1, rows, weight.shape[1], generator=generator)
    try:
        got = module(x)
    except Exception:  # a module of the model, called with what may not be meant for it
        return False
    return isinstance(got, torch.Tensor) and equal(got, functional.linear(x, weight, bias))


def _parameter(tensor: torch.Tensor | None) -> torch.nn.Parameter | None:
    if tensor is None or isinstance(tensor, torch.nn.Parameter):
        return tensor
    return torch.nn.Parameter(tensor, requires_grad=False)
