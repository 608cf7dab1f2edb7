"""A model on its way into a file: its traced graph and its description."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmfusion.exporter.architecture import Architecture, read_architecture
from lmfusion.exporter.metadata import Metadata, Parity, weights_sha256
from lmfusion.exporter.narrow import StoredWeights, WeightTypes, count_weights
from lmfusion.exporter.output import read_output_head
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
    logit_softcap: float  # 0 = none
    logit_scale: float
    stored: StoredWeights


def trace_tree(replica: PreTrainedModel, types: WeightTypes) -> Traced:
    """With tree attention; no weight is narrow yet.

    Args:
        replica: a float32 replica. It is changed, and gives its weights away one after another
            where nobody else holds them.
    """
    head = read_output_head(replica)
    architecture = read_architecture(replica, hidden_size=head.weight.shape[1])
    fix_rotary_frequencies(replica)
    return Traced(trace_tree_module(replica, head, architecture, types), architecture, head.softcap,
                  head.scale, StoredWeights())


def trace_plain(replica: PreTrainedModel) -> Traced:
    """Ids and a mask to logits. The replica is changed."""
    fix_rotary_frequencies(replica)
    module = trace_plain_module(replica)
    return Traced(module, None, 0.0, 1.0, StoredWeights(counts=count_weights(module, {})))


def describe_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None,
                   tokenizer_file: TokenizerFile, source: str, license: str) -> Metadata:
    """What a file says of a model before it is traced; its parity is not checked either."""
    config = model.config.get_text_config()
    replica = float32_replica(model)
    limits = [getattr(config, "max_position_embeddings", None) or 0,
              fix_rotary_frequencies(replica) or 0]
    vocabulary = model.get_output_embeddings().weight.shape[0]
    most = min((limit for limit in limits if limit), default=0)
    start, measured = chosen_start_token(replica, tokenizer, vocabulary, most)
    return Metadata(
        kind="plain", architecture=type(model).__name__, layers=0, q_heads=0, kv_heads=0,
        head_dim=0, hidden_size=0, windows=(), attention_softcap=0.0, logit_softcap=0.0,
        logit_scale=1.0, vocabulary_size=vocabulary, max_positions=most,
        bos_token_id=start.token_id, bos_source=start.source,
        tokenizer_adds_bos=start.tokenizer_adds_it, start_tokens=measured,
        eos_token_id=end_token(model, tokenizer), tokenizer=tokenizer_file.name,
        weight_types={}, weight_counts={}, tied_embeddings=False, weights_sha256="",
        source=source, license=license, parity=Parity(0.0, tokens=0, tolerance=0.0))


def describe_trace(metadata: Metadata, traced: Traced) -> Metadata:
    """The same with what the trace and its weights are."""
    metadata = replace(metadata, weight_types=traced.stored.block_types,
                       weight_counts=traced.stored.counts, tied_embeddings=traced.stored.tied,
                       weights_sha256=weights_sha256(traced.module))
    architecture = traced.architecture
    if architecture is None:
        return metadata
    return replace(
        metadata, kind="tree", layers=architecture.layers, q_heads=architecture.q_heads,
        kv_heads=architecture.kv_heads, head_dim=architecture.head_dim,
        hidden_size=architecture.hidden_size, windows=architecture.windows,
        attention_softcap=architecture.softcap, logit_softcap=traced.logit_softcap,
        logit_scale=traced.logit_scale)
