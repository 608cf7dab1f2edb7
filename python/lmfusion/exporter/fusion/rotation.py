"""Rotary embeddings: how a model turns its heads by the cos and sin that its layers are given.

Models differ in what they turn (the two halves of a head, or pairs of neighbours; all of it or a
first part) and in how they hand over cos and sin: once for each element, or once for each of the
two that turn together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lmfusion.exporter.fusion.parts import Angles

FORMS = {
    False: ("whole", "doubled"),  # halves
    True: ("whole", "repeated", "first half repeated"),  # pairs
}


@dataclass(frozen=True)
class Rotation:
    """x * cos + turned(x) * sin over the first elements of a head, as many as cos has."""

    interleaved: bool  # pairs (x0, x1) turn to (-x1, x0); else halves do
    form: str  # of cos and sin as the model has them

    def spread(self, angles: torch.Tensor) -> torch.Tensor:
        """cos or sin as the model has it -> [.., tokens, n], one for each element."""
        if self.form == "doubled":
            return torch.cat((angles, angles), dim=-1)
        if self.form == "first half repeated":
            angles = angles[..., :int(angles.shape[-1]) // 2]
        if self.form != "whole":
            return torch.stack((angles, angles), dim=-1).flatten(-2)
        return angles

    def turn(self, heads: torch.Tensor, angles: Angles) -> torch.Tensor:
        """[tokens, heads, head_dim] -> the same, rotated."""
        cos, sin = (self.spread(each).reshape(heads.shape[0], 1, -1) for each in angles)
        part, rest = heads[..., :cos.shape[-1]], heads[..., cos.shape[-1]:]
        if self.interleaved:
            turned = torch.stack((-part[..., 1::2], part[..., ::2]), dim=-1).flatten(-2)
        else:
            first, second = part.chunk(2, dim=-1)
            turned = torch.cat((-second, first), dim=-1)
        return torch.cat((part * cos + turned * sin, rest), dim=-1)


def turned(heads: torch.Tensor, rotation: Rotation | None,
           angles: Angles | None) -> torch.Tensor:
    """[tokens, heads, head_dim], rotated if there is a rotation."""
    return heads if rotation is None or angles is None else rotation.turn(heads, angles)


def rotations(angles: Angles | None, tokens: int, head_dim: int) -> Iterator[Rotation | None]:
    """Those that cos and sin of these sizes allow, and none."""
    yield None
    if angles is None or angles[0].shape != angles[1].shape or angles[0].numel() % tokens:
        return
    for interleaved, forms in FORMS.items():
        for form in forms:
            rotation = Rotation(interleaved, form)
            n = rotation.spread(angles[0]).numel() // tokens
            if angles[0].shape[-1] % 2 == 0 and n <= head_dim:
                yield rotation
