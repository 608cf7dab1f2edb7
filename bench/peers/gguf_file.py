"""A Llama model of transformers as a GGUF file without a vocabulary, and its quantized copies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedModel

_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
          "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
          "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
          "post_attention_layernorm": "ffn_norm"}


def write_gguf(model: PreTrainedModel, path: Path, kind: str = "F32") -> Path:
    """Writes matrices of a type that the package gguf writes ("F32", "BF16", "Q8_0", "Q4_1").

    Vectors stay float32. Returns `path`.

    Raises:
        ValueError: the model is not a Llama with plain rotary embeddings.
    """
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    if not isinstance(model, LlamaForCausalLM) or rope.get("rope_type", "default") != "default":
        raise ValueError(f"{type(model).__name__} is not written as GGUF here: only "
                         "LlamaForCausalLM with default rotary embeddings is")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    of_file = "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"
    writer.add_file_type(gguf.LlamaFileType[of_file])
    writer.add_tokenizer_model("none")  # every text comes as token ids
    for name, array in _tensors(model, head_dim):
        if kind == "F32" or array.ndim < 2:
            writer.add_tensor(name, array)
        else:
            matrix_type = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quantize(array, matrix_type), raw_dtype=matrix_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)
    return path


def quantize_gguf(source: Path, path: Path, kind: str) -> Path:
    """Writes a copy in a type of llama.cpp ("Q8_0") with its own quantizer; returns `path`."""
    import llama_cpp
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(partial).encode(), params) != 0:
        raise RuntimeError(f"llama.cpp cannot write {source} as {kind}")
    partial.rename(path)
    return path


def _tensors(model: LlamaForCausalLM, head_dim: int) -> Iterator[tuple[str, np.ndarray]]:
    yield "token_embd.weight", _array(model.model.embed_tokens.weight)
    yield "output_norm.weight", _array(model.model.norm.weight)
    if not model.config.tie_word_embeddings:
        yield "output.weight", _array(model.lm_head.weight)
    for index, layer in enumerate(model.model.layers):
        for name, parameter in layer.named_parameters():
            part, _, kind = name.rpartition(".")
            array = _array(parameter)
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                array = _interleaved(array, head_dim)
            yield f"blk.{index}.{_NAMES[part]}.{kind}", array


def _array(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().float().contiguous().numpy()


def _interleaved(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """llama.cpp rotates neighbouring pairs of a head, transformers its two halves."""
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)
