"""The module that is traced: a causal language model over a packed batch of tree tokens.

Note [How tree attention gets into a transformers model]
Every layer of most models looks its attention function up in `AttentionInterface` by name. Under
the name registered here that is the operator `lmfusion::tree_attention`. The model sees one
sequence, [1, tokens]; `position_ids` carry each token's depth in the tree. The plan of the batch
(who sees whom, which slot is whose) reaches the operator around the model, through a context
variable, so no model code knows of it; for the tracer the tensors are inputs all the same. No
mask function is registered under the name, for which transformers builds no mask at all.
"""

from __future__ import annotations

import contextvars
import warnings
from dataclasses import dataclass

import torch
from transformers import AttentionInterface, PreTrainedModel

from lmfusion.export.architecture import Architecture, decoder_of
from lmfusion.export.output import OutputHead
from lmfusion.export.replica import set_implementations, traceable_experts

TREE = "lmfusion_tree"
TRACED_TOKENS = 5


@dataclass(frozen=True)
class TreeBatch:
    """One packed batch, as the operator takes it (see src/ops/tree_attention.h)."""

    positions: torch.Tensor  # [T] int64
    slots: torch.Tensor  # [T] int32
    segments: torch.Tensor  # [S, 5] int32
    segment_slots: torch.Tensor  # [K] int32
    kv: torch.Tensor  # [layers, 2, slots, kv_heads, head_dim]
    windows: tuple[int, ...]  # one per layer


_batch: contextvars.ContextVar[TreeBatch] = contextvars.ContextVar("lmfusion_tree_batch")


class TreeModule(torch.nn.Module):
    """A model whose tokens attend along the paths of a token tree."""

    def __init__(self, model: PreTrainedModel, head: OutputHead,
                 architecture: Architecture) -> None:
        super().__init__()
        self.decoder = decoder_of(model)
        self.output_weight = head.weight
        self.output_bias = head.bias
        self.logit_scale = head.scale
        self.logit_softcap = head.softcap
        self.windows = architecture.windows

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor,
                segments: torch.Tensor, segment_slots: torch.Tensor,
                kv: torch.Tensor) -> torch.Tensor:
        """Fills the slots of a batch: tokens [T] int64 -> hidden states [T, hidden] float32."""
        token = _batch.set(
            TreeBatch(positions, slots, segments, segment_slots, kv, self.windows))
        try:
            hidden = self.decoder(input_ids=tokens.unsqueeze(0),
                                  position_ids=positions.unsqueeze(0), use_cache=False)[0]
        finally:
            _batch.reset(token)
        return hidden.squeeze(0)

    def log_normalizer(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states [N, hidden] -> log-sum-exp of their logits [N], float32."""
        return torch.ops.lmfusion.log_normalizer(
            hidden, self.output_weight, self.output_bias, self.logit_scale, self.logit_softcap)

    def token_logits(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [N] of tokens [N] int64, each after the hidden state in its row."""
        return torch.ops.lmfusion.token_logits(
            hidden, self.output_weight, self.output_bias, tokens, self.logit_scale,
            self.logit_softcap)


def trace_tree_module(model: PreTrainedModel, head: OutputHead,
                      architecture: Architecture) -> torch.jit.ScriptModule:
    """Traces a model's three methods at one small size; the trace holds for every size.

    Args:
        model: the replica to trace, rotary frequencies fixed. Its attention implementation is
            changed.
        head: the output formula, with the replica's own matrix.
        architecture: read from the same model.
    """
    AttentionInterface.register(TREE, _tree_attention)
    set_implementations(model, attention=TREE, experts=traceable_experts(model))
    module = TreeModule(model, head, architecture).eval()
    forward = _traced_batch(architecture)
    hidden = torch.zeros(3, architecture.hidden_size)
    inputs = {"forward": forward, "log_normalizer": (hidden,),
              "token_logits": (hidden, torch.zeros(3, dtype=torch.int64))}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=torch.jit.TracerWarning)
        return torch.jit.trace_module(module, inputs, check_trace=False)


def _traced_batch(architecture: Architecture) -> tuple[torch.Tensor, ...]:
    """A chain of TRACED_TOKENS tokens in slots of no particular order."""
    tokens = torch.arange(TRACED_TOKENS)
    slots = torch.arange(TRACED_TOKENS, 0, -1, dtype=torch.int32)
    segments = torch.tensor([[0, TRACED_TOKENS, 0, TRACED_TOKENS, 0]], dtype=torch.int32)
    kv = torch.zeros(architecture.layers, 2, TRACED_TOKENS + 2, architecture.kv_heads,
                     architecture.head_dim)
    return tokens, tokens.clone(), slots, segments, slots.clone(), kv


def _tree_attention(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor,
                    value: torch.Tensor, attention_mask: torch.Tensor | None, *,
                    scaling: float | None = None, softcap: float | None = None,
                    s_aux: torch.Tensor | None = None,
                    **_: object) -> tuple[torch.Tensor, None]:
    """The attention function: query, key, value [1, heads, T, head_dim] -> [1, T, heads, head_dim].

    `attention_mask` is None; the plan of the batch takes its place.
    """
    batch = _batch.get()
    layer = module.layer_idx
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    result = torch.ops.lmfusion.tree_attention(
        query.squeeze(0).transpose(0, 1), key.squeeze(0).transpose(0, 1),
        value.squeeze(0).transpose(0, 1), s_aux, batch.kv, batch.positions, batch.slots,
        batch.segments, batch.segment_slots, layer, scale, batch.windows[layer],
        float(softcap or 0.0))
    return result.unsqueeze(0), None
