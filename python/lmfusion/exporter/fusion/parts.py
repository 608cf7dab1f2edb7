"""Parts of a model, and recordings of what the code between them does.

Note [Parts and glue]
A decoder is a few parts that hold weights or mix tokens (products, norms, attention, experts) and
the code between them: heads are cut, rotated and scaled, gates multiplied, residuals added. That
code, the glue, is written anew for every architecture, so it is not read; it is watched. A forward
pass runs in which every part returns random numbers, and what reaches the next part is compared
with the formulas of the fused operators over the numbers that were returned before. A formula is
kept if it holds in every pass, over several sizes, positions and magnitudes (a clamp that most
texts never reach shows in large ones). When the model is traced, the inputs of its parts are
computed by these formulas, as one operator each; the glue still runs, but nothing reads what it
returns, and it goes with dead code. Where no formula holds, the part reads what the glue gave it.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import PreTrainedModel

from lmfusion.exporter.architecture import decoder_of

Angles = tuple[torch.Tensor, torch.Tensor]  # cos, sin


class Flow(Protocol):
    """What happens when parts are called: they are recorded, or traced."""

    angles: Angles | None  # those that the attention module was called with

    def visit(self, part: Part, x: torch.Tensor) -> torch.Tensor: ...

    def attend(self, module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor,
               value: torch.Tensor, scaling: float | None, softcap: float | None,
               sinks: torch.Tensor | None) -> torch.Tensor: ...


_flow: contextvars.ContextVar[Flow | None] = contextvars.ContextVar("lmfusion_flow", default=None)


class Part(torch.nn.Module):
    """A module of a model, replaced by one whose formula is known: hidden states -> hidden states.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, None]:
        flow = _flow.get()
        return self.compute(x) if flow is None else flow.visit(self, x)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """What the replaced module computes."""
        raise NotImplementedError

    def result_shape(self, x: torch.Tensor) -> torch.Size:
        return x.shape


class Anchor(Part):
    """What a layer is called with: not a part of the model, but a place to put a formula's result.

    If the glue of a layer is left as it is, it reads hidden states as they were computed by the
    formulas of the layers before.
    """

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return x


def anchor_layers(model: PreTrainedModel) -> None:
    """Gives every layer of a decoder an anchor."""
    def anchored(anchor: Anchor, _: torch.nn.Module, arguments: tuple[object, ...],
                 named: dict[str, object]) -> tuple[tuple[object, ...], dict[str, object]]:
        if arguments and isinstance(arguments[0], torch.Tensor):
            return (anchor(arguments[0]), *arguments[1:]), named
        x = named.get("hidden_states")
        return arguments, {**named, "hidden_states": anchor(x)} if isinstance(
            x, torch.Tensor) else named

    for layers in decoder_of(model).modules():
        if isinstance(layers, torch.nn.ModuleList) and any(
                hasattr(module, "layer_idx") for module in layers.modules()):
            for layer in layers:
                layer.register_forward_pre_hook(functools.partial(anchored, Anchor()),
                                                with_kwargs=True)


def current_flow() -> Flow:
    flow = _flow.get()
    if flow is None:
        raise RuntimeError("the attention of a fused model was called outside of a trace")
    return flow


@contextlib.contextmanager
def running(flow: Flow) -> Iterator[None]:
    """Parts called in the block go through `flow`."""
    token = _flow.set(flow)
    try:
        yield
    finally:
        _flow.reset(token)


def watch_angles(model: torch.nn.Module) -> None:
    """Tells the flow of the cos and sin that a layer hands to its attention module."""

    def note(_: torch.nn.Module, arguments: tuple[object, ...], named: dict[str, object]) -> None:
        flow = _flow.get()
        if flow is None:
            return
        for argument in (*arguments, *named.values()):
            if (isinstance(argument, tuple) and len(argument) == 2
                    and all(isinstance(each, torch.Tensor) for each in argument)):
                flow.angles = argument

    for module in model.modules():
        if hasattr(module, "layer_idx"):
            module.register_forward_pre_hook(note, with_kwargs=True)


@dataclass(frozen=True)
class Heads:
    """The arguments of one call of the attention function: [heads, tokens, head_dim] each."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    angles: Angles | None


@dataclass(frozen=True)
class Step:
    """One call of a part, or of the attention function."""

    part: Part | None  # None: attention
    x: torch.Tensor  # what it was called with; of attention, its queries
    result: torch.Tensor  # random numbers; of an anchor, x
    heads: Heads | None = None


class Recording:
    """A flow in which every part returns random numbers; see the note above."""

    def __init__(self, tokens: int, scale: float, seed: int) -> None:
        self.tokens = tokens
        self.scale = scale
        self.angles: Angles | None = None
        self.steps: list[Step] = []
        self._generator = torch.Generator().manual_seed(seed)

    def visit(self, part: Part, x: torch.Tensor) -> torch.Tensor:
        result = x if isinstance(part, Anchor) else self._noise(part.result_shape(x))
        self.steps.append(Step(part, x.clone(), result))
        return result.clone()  # glue may write to it

    def attend(self, module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor,
               value: torch.Tensor, scaling: float | None, softcap: float | None,
               sinks: torch.Tensor | None) -> torch.Tensor:
        del module, scaling, softcap, sinks
        result = self._noise(torch.Size((1, query.shape[2], query.shape[1], value.shape[3])))
        heads = Heads(query[0].clone(), key[0].clone(), value[0].clone(), self.angles)
        self.steps.append(Step(None, query, result, heads))
        return result.clone()

    def has_rows(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has a row for every token, in order: [tokens, ..] or [1, tokens, ..]."""
        leading = tensor.shape[1:] if tensor.dim() > 2 and tensor.shape[0] == 1 else tensor.shape
        return leading[0] == self.tokens

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Such a tensor as [tokens, width]."""
        return tensor.reshape(self.tokens, -1)

    def heads(self, step: int) -> Heads:
        """What the attention function was called with at its step."""
        heads = self.steps[step].heads
        assert heads is not None
        return heads

    def _noise(self, shape: torch.Size) -> torch.Tensor:
        return self.scale * torch.randn(shape, generator=self._generator)


# Tokens of a pass, magnitude of what parts return. The numbers of tokens are no usual number of
# heads, so that the two are not taken for each other.
MOST_TOKENS = 30
PASSES = ((17, 1.0), (5, 1.0), (17, 60.0), (5, 1e-2))


def record(model: PreTrainedModel) -> list[Recording]:
    """Recordings of all PASSES.

    None where they do not call the same parts in the same order, or where the glue does not take
    any numbers.
    """
    try:
        recordings = [record_pass(model, tokens, scale, seed)
                      for seed, (tokens, scale) in enumerate(PASSES)]
    except Exception:  # of the model's own code
        return []
    parts = [[step.part for step in recording.steps] for recording in recordings]
    return recordings if all(each == parts[0] for each in parts) else []


def record_pass(model: PreTrainedModel, tokens: int, scale: float, seed: int) -> Recording:
    """One recording, of random tokens at positions in no order."""
    generator = torch.Generator().manual_seed(seed)
    table = model.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    ids = torch.randint(table.shape[0], (1, tokens), generator=generator)
    positions = torch.randperm(MOST_TOKENS, generator=generator)[None, :tokens] + 1
    recording = Recording(tokens, scale, seed=1000 + seed)
    with running(recording), torch.no_grad():
        decoder_of(model)(input_ids=ids, position_ids=positions, use_cache=False)
    return recording


def equal(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether two float32 tensors are the same but for the order of a few roundings."""
    if got.shape != wanted.shape:
        return False
    bound = 1e-5 * float(wanted.abs().max().clamp(min=1e-30))
    return bool(((got - wanted).abs() <= bound).all())
