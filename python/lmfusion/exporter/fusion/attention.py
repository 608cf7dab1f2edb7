"""What a layer does with its queries, keys and values before they attend.

Note [Heads by their numbers]
The attention function is called with heads. Each is looked for, number by number, among the blocks
of head_dim columns of the layer's products, as they are, or normalised, or rotated, or both. That
finds any order of heads: queries, keys and values one after the other, or side by side in every
head (GPT-NeoX), or a group of queries with its key and value. The weight's rows are then put in the
order that the operator reads: all heads of queries, of keys, of values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lmfusion.exporter.fusion.norms import Norm
from lmfusion.exporter.fusion.parts import Angles, Recording, equal
from lmfusion.exporter.fusion.projections import Projection
from lmfusion.exporter.fusion.rotation import Rotation, rotations, turned


@dataclass(frozen=True)
class HeadSource:
    """Where the heads of queries, of keys or of values come from."""

    step: int  # of a projection, or of a norm of all heads together
    blocks: tuple[int, ...]  # block of head_dim columns, of every head
    norm: int | None = None  # step of a norm of each head
    norm_heads: tuple[int, ...] = ()  # the norm's number of every head
    scale: float = 1.0

    def heads(self, recording: Recording, head_dim: int) -> torch.Tensor:
        """[tokens, heads, head_dim], neither normalised nor rotated."""
        rows = recording.rows(recording.steps[self.step].result)
        return rows.reshape(recording.tokens, -1, head_dim)[:, list(self.blocks)]


@dataclass(frozen=True)
class Attention:
    """The arguments of lmfusion::rotary_attention."""

    query: HeadSource
    key: HeadSource
    value: HeadSource
    rotation: Rotation | None
    head_dim: int

    def holds(self, recording: Recording, step: int) -> bool:
        """Whether the heads that the attention function got in a recording are those."""
        heads = recording.heads(step)
        for source, wanted, rotation in ((self.query, heads.query, self.rotation),
                                         (self.key, heads.key, self.rotation),
                                         (self.value, heads.value, None)):
            head_dim = wanted.shape[-1]
            found = source.heads(recording, head_dim)
            if source.norm is not None:
                entered = recording.steps[source.norm]
                taken = _by_token(entered.x, recording.tokens)
                if not equal(taken[:, list(source.norm_heads)], found):
                    return False
                found = _by_token(entered.result, recording.tokens)[:, list(source.norm_heads)]
            found = turned(found, rotation, heads.angles)
            if not equal(source.scale * found, wanted.transpose(0, 1)):
                return False
        return True


def find_attention(recording: Recording, step: int, begin: int) -> Attention | None:
    """The formula of an attention function's arguments in one recording.

    Args:
        step: the call of the attention function.
        begin: the first step of its layer.
    """
    heads = recording.heads(step)
    head_dim = heads.query.shape[-1]
    value = next(_sources(recording, range(begin, step), heads.value, None, None), None)
    if value is None or value.scale != 1.0 or value.norm is not None:
        return None
    for rotation in rotations(heads.angles, recording.tokens, head_dim):
        query = next(_sources(recording, range(begin, step), heads.query, rotation, heads.angles),
                     None)
        if query is None:
            continue
        key = next(_sources(recording, range(begin, step), heads.key, rotation, heads.angles),
                   None)
        if key is not None and key.scale == 1.0 and _norms_agree(recording, query, key):
            return Attention(query, key, value, rotation, head_dim)
    return None


def _norms_agree(recording: Recording, query: HeadSource, key: HeadSource) -> bool:
    """The operator has one kind of norm, without biases."""
    norms = [recording.steps[source.norm].part for source in (query, key)
             if source.norm is not None]
    known = [norm for norm in norms
             if isinstance(norm, Norm) and norm.bias is None and norm.weight is not None]
    return len(known) == len(norms) and len({norm.centered for norm in known}) <= 1


def _sources(recording: Recording, steps: range, wanted: torch.Tensor, rotation: Rotation | None,
             angles: Angles | None) -> Iterator[HeadSource]:
    """Where heads [heads, tokens, head_dim] may come from."""
    head_dim = wanted.shape[-1]
    wanted = wanted.transpose(0, 1)
    for number in reversed(steps):
        step = recording.steps[number]
        if not isinstance(step.part, Projection | Norm):
            continue
        of_each_head = isinstance(step.part, Norm) and step.result.shape[-1] == head_dim
        if of_each_head:
            candidates = _by_token(step.result, recording.tokens)
        elif not recording.has_rows(step.result) or step.result.shape[-1] % head_dim:
            continue
        else:
            candidates = step.result.reshape(recording.tokens, -1, head_dim)
        found = _blocks(candidates, wanted, rotation, angles)
        if found is None:
            continue
        blocks, scale = found
        if not of_each_head:
            yield HeadSource(number, blocks, scale=scale)
            continue
        taken = _by_token(step.x, recording.tokens)[:, list(blocks)]
        source = next(_sources(recording, range(steps.start, number), taken.transpose(0, 1), None,
                               None), None)
        if source is not None and source.norm is None and source.scale == 1.0:
            yield HeadSource(source.step, source.blocks, number, blocks, scale)


def _blocks(candidates: torch.Tensor, wanted: torch.Tensor, rotation: Rotation | None,
            angles: Angles | None) -> tuple[tuple[int, ...], float] | None:
    """Which of [tokens, blocks, head_dim], rotated and scaled, are [tokens, heads, head_dim]."""
    if candidates.shape[1] < wanted.shape[1]:
        return None
    candidates = turned(candidates, rotation, angles)
    one, other = candidates[1], wanted[1]  # of one token; of all of them below
    likeness = (torch.nn.functional.normalize(other, dim=-1)
                @ torch.nn.functional.normalize(one, dim=-1).T)
    blocks = likeness.abs().argmax(dim=1)
    chosen = candidates[:, blocks]
    scale = float((chosen.double() * wanted).sum() / chosen.double().square().sum())
    if abs(scale - 1) < 1e-6:
        scale = 1.0
    return (tuple(blocks.tolist()), scale) if equal(scale * chosen, wanted) else None


def _by_token(x: torch.Tensor, tokens: int) -> torch.Tensor:
    """Heads [.., tokens, heads, dim] or [1, heads, tokens, dim] -> [tokens, heads, dim]."""
    if x.dim() == 4 and x.shape[1] != tokens:
        return x[0].transpose(0, 1)
    return x.reshape(tokens, -1, x.shape[-1])
