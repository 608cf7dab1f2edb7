"""Activations, alone or times another product: what stands before the last product of an MLP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lmfusion.exporter.fusion.parts import Recording, equal
from lmfusion.exporter.fusion.projections import Projection

ACTIVATIONS = ("silu", "gelu_tanh", "gelu", "relu")


@dataclass(frozen=True)
class Columns:
    """Columns of the result of a projection, from `begin` on."""

    step: int
    begin: int = 0


@dataclass(frozen=True)
class Gate:
    """activation(gate) * up, or activation(gate)."""

    activation: str
    gate: Columns
    up: Columns | None
    width: int

    def holds(self, recording: Recording, x: torch.Tensor) -> bool:
        def rows(columns: Columns) -> torch.Tensor:
            result = recording.rows(recording.steps[columns.step].result)
            return result[:, columns.begin:columns.begin + self.width].contiguous()

        gate, up = rows(self.gate), None if self.up is None else rows(self.up)
        return equal(torch.ops.lmfusion.gate(gate, up, self.activation, 0, 0, self.width),
                     recording.rows(x))


def find_gate(recording: Recording, step: int, begin: int) -> Gate | None:
    """The formula of a projection's input in one recording, if it is a gate."""
    x = recording.steps[step].x
    if not recording.has_rows(x):
        return None
    width = recording.rows(x).shape[1]
    columns = list(_columns(recording, range(begin, step), width))
    for activation in ACTIVATIONS:
        for gate in columns:
            for up in (None, *columns):
                found = Gate(activation, gate, up, width)
                if up != gate and found.holds(recording, x):
                    return found
    return None


def _columns(recording: Recording, steps: range, width: int) -> Iterator[Columns]:
    for number in reversed(steps):
        part = recording.steps[number].part
        if isinstance(part, Projection) and part.width == width:
            yield Columns(number)
        elif isinstance(part, Projection) and part.width == 2 * width:
            yield Columns(number, 0)
            yield Columns(number, width)
