"""The flow of a trace: inputs of parts are computed by the formulas that were found for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lmfusion.exporter.fusion.attention import Attention, HeadSource
from lmfusion.exporter.fusion.experts import Experts
from lmfusion.exporter.fusion.gates import Columns, Gate
from lmfusion.exporter.fusion.norms import Norm
from lmfusion.exporter.fusion.parts import Angles, Part
from lmfusion.exporter.fusion.plan import Plan
from lmfusion.exporter.fusion.projections import Projection
from lmfusion.exporter.fusion.residuals import Sum, Value
from lmfusion.exporter.fusion.rotation import Rotation


@dataclass(frozen=True)
class TreeBatch:
    """One packed batch, as the operator takes it (see src/ops/tree_attention.h)."""

    positions: torch.Tensor  # [T] int64
    slots: torch.Tensor  # [T] int32
    segments: torch.Tensor  # [S, 5] int32
    segment_slots: torch.Tensor  # [K] int32
    kv: torch.Tensor  # [layers, 2, slots, kv_heads, head_dim]
    windows: tuple[int, ...]  # one per layer


class Emission:
    """One traced forward pass. Tensors of hidden states are [1, T, width]."""

    def __init__(self, plan: Plan, batch: TreeBatch) -> None:
        self.angles: Angles | None = None
        self._plan = plan
        self._batch = batch
        self._next = 0
        self._inputs: dict[int, torch.Tensor] = {}
        self._results: dict[int, torch.Tensor] = {}
        self._products: dict[int, torch.Tensor] = {}  # by the first step of a stack
        self._spread: dict[tuple[int, str], Angles] = {}
        self._held: list[Angles] = []  # so that no other has their id

    def visit(self, part: Part, x: torch.Tensor) -> torch.Tensor:
        step = self._step(part)
        value = self._input(step, x)
        self._inputs[step] = value
        result = (self._projected(step, part, value) if isinstance(part, Projection)
                  else part.compute(value))
        self._results[step] = result
        shape = part.result_shape(x)
        return result if result.dim() == x.dim() else result.reshape(shape)

    def attend(self, module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor,
               value: torch.Tensor, scaling: float | None, softcap: float | None,
               sinks: torch.Tensor | None) -> torch.Tensor:
        """Queries, keys, values [1, heads, T, head_dim] -> [1, T, heads, head_dim]."""
        step = self._step(None)
        layer = _layer_of(module)
        head_dim = int(query.shape[-1])
        scale = head_dim ** -0.5 if scaling is None else float(scaling)
        found = self._plan.attentions.get(step)
        if found is None:
            result = torch.ops.lmfusion.tree_attention(
                *(each.squeeze(0).transpose(0, 1) for each in (query, key, value)), sinks,
                *self._tree(layer, scale, softcap))
            return result.unsqueeze(0)
        result = self._rotary_attention(found, head_dim, layer, scale, softcap, sinks)
        self._results[step] = result
        return result.unflatten(-1, (-1, head_dim))

    def _rotary_attention(self, found: Attention, head_dim: int, layer: int, scale: float,
                          softcap: float | None, sinks: torch.Tensor | None) -> torch.Tensor:
        sources = (found.query, found.key, found.value)
        rows, columns = [], []
        for source, first in zip(sources, self._plan.first_blocks(found)):
            product, begin = self._columns(Columns(source.step, first * head_dim))
            rows.append(product)
            columns += [begin, begin + len(source.blocks) * head_dim]
        norms = [self._norm_of(source) for source in sources[:2]]
        (query_weight, query_epsilon, _), (key_weight, key_epsilon, _) = norms
        cos, sin = self._angles(found.rotation)
        return torch.ops.lmfusion.rotary_attention(
            *rows, columns, query_weight, query_epsilon, key_weight, key_epsilon,
            any(centered for _, _, centered in norms), cos, sin,
            found.rotation is not None and found.rotation.interleaved, sinks,
            *self._tree(layer, scale * found.query.scale, softcap))

    def _tree(self, layer: int, scale: float, softcap: float | None) -> tuple[object, ...]:
        """The arguments of tree attention behind queries, keys, values and sinks."""
        batch = self._batch
        return (batch.kv, batch.positions, batch.slots, batch.segments, batch.segment_slots,
                layer, scale, batch.windows[layer], float(softcap or 0.0))

    def _norm_of(self, source: HeadSource) -> tuple[torch.Tensor | None, float, bool]:
        """Weight, epsilon, and whether it is centered."""
        norm = None if source.norm is None else self._plan.parts[source.norm]
        if not isinstance(norm, Norm) or norm.weight is None:
            return None, 0.0, False
        return norm.weight, norm.epsilon, norm.centered

    def _angles(self, rotation: Rotation | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if rotation is None or self.angles is None:
            return None, None
        cos, sin = self.angles
        key = (id(cos), rotation.form)
        if key not in self._spread:  # once for all layers
            self._held.append(self.angles)
            self._spread[key] = rotation.spread(cos), rotation.spread(sin)
        return self._spread[key]

    def _step(self, part: Part | None) -> int:
        step = self._next
        self._next += 1
        if self._plan.parts and self._plan.parts[step] is not part:
            raise RuntimeError("a model calls its parts in another order than it did before")
        return step

    def _input(self, step: int, x: torch.Tensor) -> torch.Tensor:
        found = self._plan.inputs.get(step)
        if isinstance(found, Value):
            value = self._value(found)
            return x if value is None or value.shape[-1] != x.shape[-1] else value
        if isinstance(found, Gate):
            gate, begin = self._columns(found.gate)
            up, up_begin = (None, 0) if found.up is None else self._columns(found.up)
            return torch.ops.lmfusion.gate(gate, up, found.activation, begin, up_begin,
                                           found.width)
        return self._sum(found) if isinstance(found, Sum) else x

    def _sum(self, found: Sum) -> torch.Tensor:
        total = self._known(found.residual)
        for term in reversed(found.terms):
            part, x = self._plan.parts[term.step], self._inputs[term.step]
            if isinstance(part, Projection):
                if term.gate is not None:  # of its rows, as of those of the product
                    gates, begin = self._columns(Columns(term.gate))
                    x = x * gates[..., begin:begin + 1].sigmoid()
                total = torch.ops.lmfusion.linear_add(x, part.weight, part.bias, total,
                                                      term.scale)
            elif isinstance(part, Experts) and term.scale != 1.0:
                total = torch.add(total, part.compute(x), alpha=term.scale)
            elif isinstance(part, Norm | Experts):
                total = part.compute(x, total)
        return total

    def _known(self, value: Value) -> torch.Tensor:
        tensor = self._value(value)
        assert tensor is not None
        return tensor

    def _value(self, value: Value) -> torch.Tensor | None:
        return (self._results if value.is_result else self._inputs).get(value.step)

    def _projected(self, step: int, part: Projection, x: torch.Tensor) -> torch.Tensor:
        first, begin = self._plan.stacks.get(step, (step, 0))
        if first == step:
            self._products[step] = part.compute(x)
        product = self._products[first]
        result = (product if step not in self._plan.stacks
                  else product[..., begin:begin + part.width])
        order = self._plan.orders.get(step)
        if order is None:
            return result
        original = torch.tensor(order).argsort()  # as the glue expects it
        return result.unflatten(-1, (len(order), -1)).index_select(-2, original).flatten(-2)

    def _columns(self, columns: Columns) -> tuple[torch.Tensor, int]:
        """The tensor that holds columns of a step's result, and where they begin in it."""
        if isinstance(self._plan.parts[columns.step], Projection):
            first, begin = self._plan.stacks.get(columns.step, (columns.step, 0))
            return self._products[first], begin + columns.begin
        return self._results[columns.step], columns.begin


def _layer_of(attention: torch.nn.Module) -> int:
    layer = attention.layer_idx
    assert isinstance(layer, int)
    return layer
