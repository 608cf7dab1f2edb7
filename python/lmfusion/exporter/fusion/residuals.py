"""Residuals: hidden states to which the results of one or two parts are added, perhaps scaled,
or gated by a number a token."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from lmfusion.exporter.fusion.experts import Experts
from lmfusion.exporter.fusion.norms import Norm
from lmfusion.exporter.fusion.parts import Recording, equal
from lmfusion.exporter.fusion.projections import Projection

NEAR = 16  # steps back that a residual may come from


@dataclass(frozen=True)
class Value:
    """Hidden states at a step: what its part was called with, or what it returned."""

    step: int
    is_result: bool

    def tensor(self, recording: Recording) -> torch.Tensor:
        step = recording.steps[self.step]
        return step.result if self.is_result else step.x

    def rows(self, recording: Recording) -> torch.Tensor:
        """[tokens, width], of a tensor that has rows."""
        return recording.rows(self.tensor(recording))


@dataclass(frozen=True)
class Term:
    """scale * result of a part, or scale * sigmoid(result of a product to one number) * that."""

    step: int
    gate: int | None = None  # step of that product
    scale: float = 1.0

    def rows(self, recording: Recording) -> torch.Tensor:
        """Without the scale: [tokens, width]."""
        result = Value(self.step, True).rows(recording)
        if self.gate is None:
            return result
        return Value(self.gate, True).rows(recording).sigmoid() * result


@dataclass(frozen=True)
class Sum:
    """residual + a term (+ another)."""

    residual: Value
    terms: tuple[Term, ...]

    def holds(self, recording: Recording, x: torch.Tensor) -> bool:
        total = self.residual.rows(recording)
        for term in self.terms:
            total = total + term.scale * term.rows(recording)
        return equal(total, recording.rows(x))


def find_sum(recording: Recording, step: int, values: list[Value]) -> Sum | None:
    """The formula of a part's input in one recording, if it is a sum.

    Args:
        values: hidden states before `step` that are not the same as others of them.
    """
    x = recording.steps[step].x
    if not recording.has_rows(x):
        return None
    rows = recording.rows(x)
    near = [value for value in values if value.step >= step - NEAR
            and recording.has_rows(tensor := value.tensor(recording))
            and recording.rows(tensor).shape == rows.shape]
    results = [value.step for value in reversed(near) if value.is_result]
    products = [Term(each) for each in results
                if isinstance(recording.steps[each].part, Projection | Experts)]
    norms = [Term(each) for each in results if isinstance(recording.steps[each].part, Norm)]
    gated = list(_gated(recording, max(0, step - NEAR), step, products))
    for addends, count in ((products, 1), (norms, 1), (products, 2), (gated + products, 2)):
        for residual in reversed(near):
            for terms in itertools.combinations(addends, count):
                if residual.is_result and residual.step in [term.step for term in terms]:
                    continue
                found = _fitted(recording, rows, residual, terms)
                if found is not None and found.holds(recording, x):
                    return found
    return None


def _gated(recording: Recording, begin: int, end: int, products: list[Term]) -> Iterator[Term]:
    """Terms with a gate, which goes to the input of the product: so it has no bias."""
    for gate in range(begin, end):
        part = recording.steps[gate].part
        if isinstance(part, Projection) and part.width == 1:
            for term in products:
                product = recording.steps[term.step].part
                if isinstance(product, Projection) and product.bias is None:
                    yield Term(term.step, gate)


def _fitted(recording: Recording, rows: torch.Tensor, residual: Value,
            terms: tuple[Term, ...]) -> Sum | None:
    """The sum of given terms whose scales are the best ones."""
    rest = (rows - residual.rows(recording)).double().flatten()
    results = torch.stack([term.rows(recording).double().flatten() for term in terms])
    scales = torch.linalg.lstsq(results @ results.T, (results @ rest)[:, None]).solution[:, 0]
    scaled = []
    for term, scale in zip(terms, scales.tolist()):
        scale = 1.0 if abs(scale - 1) < 1e-6 else float(f"{scale:.7g}")
        if scale != 1.0 and isinstance(recording.steps[term.step].part, Norm):
            return None  # its operator has no scale
        if abs(scale) < 1e-6:
            return None
        scaled.append(replace(term, scale=scale))
    return Sum(residual, tuple(scaled))


def unlike(values: list[Value], same: dict[int, Value]) -> Iterator[Value]:
    """Those values that are not known to be another one."""
    for value in values:
        if value.is_result or value.step not in same:
            yield value
