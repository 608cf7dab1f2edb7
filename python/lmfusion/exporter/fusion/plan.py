"""The formulas of all inputs of a model's parts, found in recordings, and weights to match."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import NoneType

import torch

from lmfusion.exporter.fusion.attention import Attention, HeadSource, find_attention
from lmfusion.exporter.fusion.gates import Gate, find_gate
from lmfusion.exporter.fusion.norms import Norm
from lmfusion.exporter.fusion.parts import Anchor, Part, Recording
from lmfusion.exporter.fusion.projections import Projection, stack
from lmfusion.exporter.fusion.residuals import NEAR, Sum, Value, find_sum, unlike

Formula = Value | Gate | Sum


@dataclass
class Plan:
    """What to emit at each step of a forward pass. Steps that nothing is known of are not in it."""

    parts: list[Part | None] = field(default_factory=list)  # of all steps; None: attention
    inputs: dict[int, Formula] = field(default_factory=dict)
    attentions: dict[int, Attention] = field(default_factory=dict)
    # Step of a projection -> the first step of its stack, and the column where it begins there.
    stacks: dict[int, tuple[int, int]] = field(default_factory=dict)
    # Step of a projection -> its blocks of head_dim rows, in the order they have now.
    orders: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def first_blocks(self, attention: Attention) -> list[int]:
        """Where the heads of queries, keys and values begin in their sources, in blocks."""
        return [self._first_block(source)
                for source in (attention.query, attention.key, attention.value)]

    def _first_block(self, source: HeadSource) -> int:
        order = self.orders.get(source.step)
        return source.blocks[0] if order is None else order.index(source.blocks[0])


def make_plan(recordings: list[Recording], type_of: Callable[[torch.Tensor], str]) -> Plan:
    """Finds formulas in the first recording and keeps those that hold in all of them.

    Weights of projections are reordered and stacked to match.

    Args:
        type_of: how a weight will be stored; only weights of one type are stacked.
    """
    if not recordings:
        return Plan()
    first = recordings[0]
    plan = Plan(parts=[step.part for step in first.steps])
    same: dict[int, Value] = {}
    layer = 0  # first step of the current one
    for number, step in enumerate(first.steps):
        if step.part is None:
            _find_heads(plan, recordings, number, layer)
            layer = number + 1
            continue
        values = [Value(earlier, is_result) for earlier in range(max(0, number - NEAR), number)
                  for is_result in (False, True)]
        values = [value for value in unlike(values, same) if not isinstance(
            first.steps[value.step].part, Anchor if value.is_result else NoneType)]
        known = _same(recordings, number, values)
        if known is not None:
            same[number] = known
            plan.inputs[number] = known
            continue
        found = (find_gate(first, number, max(0, number - NEAR))
                 or find_sum(first, number, values))
        if found is not None and all(found.holds(recording, recording.steps[number].x)
                                     for recording in recordings):
            plan.inputs[number] = found
    _reorder(plan)
    _stack(plan, type_of)
    return plan


def _same(recordings: list[Recording], step: int, values: list[Value]) -> Value | None:
    def is_input(value: Value, recording: Recording) -> bool:
        x, held = recording.steps[step].x, value.tensor(recording)
        return (recording.has_rows(x) and recording.has_rows(held)
                and torch.equal(recording.rows(x), recording.rows(held)))

    return next((value for value in reversed(values)
                 if all(is_input(value, recording) for recording in recordings)), None)


def _find_heads(plan: Plan, recordings: list[Recording], step: int, layer: int) -> None:
    found = find_attention(recordings[0], step, layer)
    if found is None or not all(found.holds(recording, step) for recording in recordings):
        return
    for source in (found.query, found.key, found.value):
        if isinstance(plan.parts[source.step], Norm) and not _in_order(source.blocks):
            return
        if source.norm is not None and source.norm_heads != tuple(range(len(source.blocks))):
            return
    plan.attentions[step] = found


def _reorder(plan: Plan) -> None:
    """Puts the rows of weights in the order queries, keys, values, where they are in another."""
    for found in plan.attentions.values():
        wanted: dict[int, list[int]] = {}
        for source in (found.query, found.key, found.value):
            wanted.setdefault(source.step, []).extend(source.blocks)
        for step, blocks in wanted.items():
            part = plan.parts[step]
            if not isinstance(part, Projection) or step in plan.orders:
                continue
            if all(_in_order(source.blocks) for source in (found.query, found.key, found.value)
                   if source.step == step):
                continue
            count = part.width // found.head_dim
            order = [*blocks, *(block for block in range(count) if block not in blocks)]
            part.reorder(order)
            plan.orders[step] = tuple(order)


def _in_order(blocks: Sequence[int]) -> bool:
    return list(blocks) == list(range(blocks[0], blocks[0] + len(blocks)))


def _stack(plan: Plan, type_of: Callable[[torch.Tensor], str]) -> None:
    """Stacks the projections of one input; not those that a residual is added to, each its own."""
    added = {term.step for found in plan.inputs.values() if isinstance(found, Sum)
             for term in found.terms}
    readers: dict[tuple[Value, str], list[int]] = defaultdict(list)
    for step, part in enumerate(plan.parts):
        if isinstance(part, Projection) and step not in added and plan.parts.count(part) == 1:
            known = plan.inputs.get(step)
            x = known if isinstance(known, Value) else Value(step, False)
            readers[x, type_of(part.own_weight())].append(step)
    for steps in readers.values():
        projections = [part for step in steps if isinstance(part := plan.parts[step], Projection)]
        if len(steps) > 1:
            for step, begin in zip(steps, stack(projections)):
                plan.stacks[step] = steps[0], begin
