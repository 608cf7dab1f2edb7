"""What a model's attention looks like, found by watching one forward pass.

Note [Probing instead of reading the configuration]
Configurations name the same thing in many ways (`sliding_window`, `layer_types`,
`use_sliding_window`, `max_window_layers`, ...), and which of them a model obeys is known to its
code only. So a registered attention function records what each layer passes (heads, head size,
soft cap, sinks), and a registered mask function works out, from the very mask function that eager
attention would use, how far back a layer sees. The recording function returns zeros instead of
attention: then no token can learn of another, and if one still does, the model mixes tokens
outside attention (convolutions, state spaces), which a token tree cannot hold.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from lmfusion.errors import ExportError
from lmfusion.exporter.replica import set_implementations, traceable_experts

WAY_OUT = ("It can be exported without tree attention, to be scored uncached: uncached=True, "
           "or --uncached on the command line.")

PROBE = "lmfusion_probe"
PROBE_TOKENS = 6
LONGEST_WINDOW = 1 << 20  # a window this long or longer counts as full attention
REFUSED_MASK = -1

# Tensors that layers hand to the attention function and that do not change its result.
HARMLESS_TENSORS = {"position_ids", "cache_position", "cu_seq_lens_q", "cu_seq_lens_k", "s_aux"}


@dataclass(frozen=True)
class LayerAttention:
    """One call of the attention function: a layer's shapes and rules."""

    layer: int
    q_heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int  # tokens a token sees, itself counted; 0 = all
    softcap: float  # 0 = none
    sinks: bool


@dataclass(frozen=True)
class Architecture:
    """What the engine must know to hold a model's keys and values."""

    name: str  # class name, "LlamaForCausalLM"
    q_heads: int
    kv_heads: int
    head_dim: int
    hidden_size: int  # of the hidden states that the output matrix reads
    windows: tuple[int, ...]  # one per layer, in tokens; 0 = full attention
    softcap: float  # 0 = none
    sinks: bool

    @property
    def layers(self) -> int:
        return len(self.windows)


def read_architecture(model: PreTrainedModel, hidden_size: int) -> Architecture:
    """Finds a model's attention layout, or says why a token tree cannot hold it.

    Args:
        model: a float32 replica; its attention implementation is changed.
        hidden_size: width of the output matrix.

    Raises:
        ExportError: the model is not exact under tree attention; the text gives the way out.
    """
    name = type(model).__name__
    if "position_ids" not in inspect.signature(decoder_of(model).forward).parameters:
        raise ExportError(f"{name} takes no position_ids: its attention depends on positions in "
                          f"a way tree attention does not implement (ALiBi, recurrence). {WAY_OUT}")
    layers, mixes_tokens = _probe(model, name)
    if mixes_tokens:
        raise ExportError(f"{name} passes information between tokens outside its attention "
                          "layers (a convolution, a recurrence or a state space), which a token "
                          f"tree does not hold. {WAY_OUT}")
    if not layers:
        raise ExportError(f"{name} does not call its attention through transformers' "
                          "AttentionInterface, so tree attention cannot take its place (ALiBi and "
                          f"state-space models do not). {WAY_OUT}")
    expected = model.config.get_text_config().num_hidden_layers
    if [layer.layer for layer in layers] != list(range(expected)):
        raise ExportError(f"{name} has {expected} layers, but attention was called for layers "
                          f"{[layer.layer for layer in layers]}. {WAY_OUT}")
    first = layers[0]
    for layer in layers:
        if layer.window == REFUSED_MASK:
            raise ExportError(f"{name}: the mask of layer {layer.layer} is neither causal nor a "
                              f"causal sliding window. {WAY_OUT}")
        if (layer.kv_heads, layer.head_dim) != (first.kv_heads, first.head_dim):
            raise ExportError(
                f"{name}: layer {layer.layer} has {layer.kv_heads} key/value heads of "
                f"{layer.head_dim}, layer 0 has {first.kv_heads} of {first.head_dim}; the engine "
                f"holds one shape for all layers. {WAY_OUT}")
        if layer.q_heads != first.q_heads or layer.value_dim != layer.head_dim:
            raise ExportError(f"{name}: keys of size {layer.head_dim} and values of size "
                              f"{layer.value_dim}, {layer.q_heads} query heads in layer "
                              f"{layer.layer} ({first.q_heads} in layer 0), are not "
                              f"implemented. {WAY_OUT}")
    return Architecture(
        name=name, q_heads=first.q_heads, kv_heads=first.kv_heads, head_dim=first.head_dim,
        hidden_size=hidden_size, windows=tuple(layer.window for layer in layers),
        softcap=max(layer.softcap for layer in layers), sinks=any(layer.sinks for layer in layers))


def decoder_of(model: PreTrainedModel) -> torch.nn.Module:
    """The part of a causal language model below its output matrix."""
    return model.base_model


@dataclass
class _Recording:
    layers: list[LayerAttention] = field(default_factory=list)


_recording: contextvars.ContextVar[_Recording] = contextvars.ContextVar("lmfusion_recording")


def _probe(model: PreTrainedModel, name: str) -> tuple[list[LayerAttention], bool]:
    """Runs the model twice; returns its attention calls and whether tokens mixed without them."""
    AttentionInterface.register(PROBE, _record_attention)
    AttentionMaskInterface.register(PROBE, _mask_to_window)
    set_implementations(model, attention=PROBE, experts=traceable_experts(model))
    tokens = torch.arange(PROBE_TOKENS)[None] % model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    changed = tokens.clone()
    changed[0, PROBE_TOKENS // 2] += 1
    try:
        layers, hidden = _record(model, tokens)
        _, hidden_changed = _record(model, changed)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"{name} cannot run with another attention function: "
                          f"{type(error).__name__}: {error}. {WAY_OUT}") from error
    others = [i for i in range(PROBE_TOKENS) if i != PROBE_TOKENS // 2]
    mixes = not torch.allclose(hidden[:, others], hidden_changed[:, others], rtol=1e-4, atol=1e-5)
    return layers, mixes and bool(layers)


def _record(model: PreTrainedModel,
            tokens: torch.Tensor) -> tuple[list[LayerAttention], torch.Tensor]:
    recording = _Recording()
    token = _recording.set(recording)
    try:
        with torch.no_grad():
            hidden = decoder_of(model)(
                input_ids=tokens, attention_mask=torch.ones_like(tokens),
                position_ids=torch.arange(tokens.shape[1])[None], use_cache=False)[0]
    finally:
        _recording.reset(token)
    return recording.layers, hidden


def _record_attention(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor,
                      value: torch.Tensor, attention_mask: torch.Tensor | None,
                      **kwargs: Any) -> tuple[torch.Tensor, None]:
    """The attention function of the probe: [1, heads, tokens, head_dim] -> zeros."""
    unknown = [key for key, argument in kwargs.items()
               if isinstance(argument, torch.Tensor) and key not in HARMLESS_TENSORS]
    if unknown:
        raise ExportError(f"{type(module).__name__} hands {', '.join(unknown)} to its attention, "
                          f"which tree attention does not implement. {WAY_OUT}")
    if attention_mask is None:
        window = int(kwargs.get("sliding_window") or 0)
    elif attention_mask.dtype == torch.int64:
        window = int(attention_mask.flatten()[0])
    else:
        window = REFUSED_MASK
    _recording.get().layers.append(LayerAttention(
        layer=getattr(module, "layer_idx", -1), q_heads=query.shape[1], kv_heads=key.shape[1],
        head_dim=key.shape[-1], value_dim=value.shape[-1], window=window,
        softcap=float(kwargs.get("softcap") or 0.0), sinks=kwargs.get("s_aux") is not None))
    return torch.zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1]), None


def _mask_to_window(batch_size: int, q_length: int, kv_length: int, *,
                    mask_function: Callable[..., torch.Tensor],
                    **_: object) -> torch.Tensor:
    """The mask function of the probe: the window, in place of every entry of the mask."""
    window = _window_of(mask_function)
    return torch.full((batch_size, 1, q_length, kv_length), window, dtype=torch.int64)


def _window_of(mask_function: Callable[..., torch.Tensor]) -> int:
    """How many tokens back a mask sees: 0 for all, REFUSED_MASK where it is no window."""
    zero = torch.zeros((), dtype=torch.int64)
    windows = set()
    for query in (LONGEST_WINDOW, LONGEST_WINDOW // 2 + 1, LONGEST_WINDOW - 7):
        keys = torch.arange(query + 2)
        visible = torch.as_tensor(mask_function(zero, zero, torch.tensor(query), keys))
        visible = visible.expand(query + 2)
        window = int(visible.sum())
        distance = query - keys
        if not torch.equal(visible, (distance >= 0) & (distance < window)):
            return REFUSED_MASK
        windows.add(0 if window == query + 1 else window)
    return windows.pop() if len(windows) == 1 else REFUSED_MASK
