"""A model on its way into a file: its traced graph and its description."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmfusion.exporter.architecture import Architecture, read_architecture
from lmfusion.exporter.metadata import Metadata, Parity, weights_sha256
from lmfusion.exporter.narrow import StoredWeights, WeightTypes, count_weights
from lmfusion.exporter.output import OutputHead, read_output_head
from lmfusion.exporter.plain_module import trace_plain_module
from lmfusion.exporter.replica import float32_replica
from lmfusion.exporter.rotary import fix_rotary_frequencies
from lmfusion.exporter.start_token import chosen_start_token
from lmfusion.exporter.tokenizer_file import TokenizerFile, end_token
from lmfusion.exporter.tree_module import trace_tree_module


@dataclass(frozen=True)
class Traced:
    """A model's graph, and what was found out about it on the way."""

    module: torch.jit.ScriptModule
    architecture: Architecture | None  # None for the plain form
    head: OutputHead | None
    position_limit: int | None  # by rotary.py
    stored: StoredWeights


def trace_tree(model: PreTrainedModel, types: WeightTypes) -> Traced:
    """With tree attention; no weight is narrow yet."""
    replica = float32_replica(model)
    head = read_output_head(replica)
    architecture = read_architecture(replica, hidden_size=head.weight.shape[1])
    limit = fix_rotary_frequencies(replica)
    return Traced(trace_tree_module(replica, head, architecture, types), architecture, head, limit,
                  StoredWeights())


def trace_plain(model: PreTrainedModel) -> Traced:
    """Ids and a mask to logits."""
    replica = float32_replica(model)
    limit = fix_rotary_frequencies(replica)
    module = trace_plain_module(replica)
    return Traced(module, None, None, limit, StoredWeights(counts=count_weights(module, {})))


def describe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None,
             tokenizer_file: TokenizerFile, traced: Traced, source: str, license: str) -> Metadata:
    """What the file says of itself; its parity is not checked yet."""
    config = model.config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None) or 0, traced.position_limit or 0]
    architecture, head = traced.architecture, traced.head
    vocabulary = model.get_output_embeddings().weight.shape[0]
    most = min((limit for limit in limits if limit), default=0)
    start, measured = chosen_start_token(float32_replica(model), tokenizer, vocabulary, most)
    return Metadata(
        kind="plain" if architecture is None else "tree",
        architecture=type(model).__name__,
        layers=architecture.layers if architecture else 0,
        q_heads=architecture.q_heads if architecture else 0,
        kv_heads=architecture.kv_heads if architecture else 0,
        head_dim=architecture.head_dim if architecture else 0,
        hidden_size=architecture.hidden_size if architecture else 0,
        windows=architecture.windows if architecture else (),
        attention_softcap=architecture.softcap if architecture else 0.0,
        logit_softcap=head.softcap if head else 0.0,
        logit_scale=head.scale if head else 1.0,
        vocabulary_size=vocabulary,
        max_positions=most,
        bos_token_id=start.token_id, bos_source=start.source,
        tokenizer_adds_bos=start.tokenizer_adds_it, start_tokens=measured,
        eos_token_id=end_token(model, tokenizer),
        tokenizer=tokenizer_file.name,
        weight_types=traced.stored.block_types, weight_counts=traced.stored.counts,
        tied_embeddings=traced.stored.tied,
        weights_sha256=weights_sha256(traced.module), source=source, license=license,
        parity=Parity(0.0, tokens=0, tolerance=0.0))
