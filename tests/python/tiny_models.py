"""Tiny random causal language models and tokenizers, one of every architecture the exporter knows.

Every weight is random with a visible scale, norms, biases and attention sinks too, so that a
formula that drops one of them cannot pass a test.
"""

from __future__ import annotations

from collections.abc import Callable

import tokenizers
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 280
WINDOW = 7

Build = Callable[[], transformers.PretrainedConfig]


def _config(name: str, **settings: object) -> transformers.PretrainedConfig:
    return getattr(transformers, name + "Config")(vocab_size=VOCABULARY, bos_token_id=1,
                                                  eos_token_id=2, pad_token_id=0, **settings)


def _llama_like(name: str, **settings: object) -> transformers.PretrainedConfig:
    """Grouped-query attention; heads of 12 where hidden size / heads would be 8."""
    return _config(name, **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
                            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
                            "max_position_embeddings": 256, **settings})


def _square(name: str, **settings: object) -> transformers.PretrainedConfig:
    """As `_llama_like`, for architectures whose heads always divide the hidden size."""
    settings.setdefault("num_key_value_heads", 2)
    return _config(name, **{"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3,
                            "num_attention_heads": 4, "max_position_embeddings": 256, **settings})


MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
        "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0,
            "short_factor": [1.0, 1.3, 1.7, 2, 2, 2], "long_factor": [4.0, 5.0, 6.0, 7, 8, 9],
            "original_max_position_embeddings": 40}

# name -> configuration; all of these are exported with tree attention.
TREE_CONFIGS: dict[str, Build] = {
    "llama": lambda: _llama_like("Llama", tie_word_embeddings=False),
    "llama-tied-biases": lambda: _llama_like("Llama", tie_word_embeddings=True,
                                             attention_bias=True, mlp_bias=True),
    "llama-linear": lambda: _llama_like("Llama", rope_parameters=LINEAR),
    "llama-llama3": lambda: _llama_like("Llama", rope_parameters=LLAMA3),
    "llama-yarn": lambda: _llama_like("Llama", rope_parameters=YARN),
    "mistral": lambda: _llama_like("Mistral", sliding_window=WINDOW),
    "qwen2": lambda: _square("Qwen2"),
    "qwen2-mixed": lambda: _square("Qwen2", use_sliding_window=True, sliding_window=WINDOW,
                                   max_window_layers=1),
    "qwen3": lambda: _llama_like("Qwen3"),
    "gemma": lambda: _llama_like("Gemma"),
    "gemma2": lambda: _llama_like("Gemma2", sliding_window=WINDOW, layer_types=MIXED,
                                  attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
                                  query_pre_attn_scalar=17),
    "gemma3": lambda: _llama_like("Gemma3Text", sliding_window=WINDOW, layer_types=MIXED,
                                  query_pre_attn_scalar=17),
    "granite": lambda: _square("Granite", embedding_multiplier=3.0, logits_scaling=0.5,
                               residual_multiplier=0.7, attention_multiplier=0.3),
    "phi3": lambda: _square("Phi3", original_max_position_embeddings=256),
    "starcoder2": lambda: _square("Starcoder2"),
    "phi": lambda: _square("Phi", partial_rotary_factor=0.5),
    "glm": lambda: _square("Glm", head_dim=12, attention_bias=True),
    "gpt-bigcode": lambda: _config("GPTBigCode", n_embd=32, n_layer=3, n_head=4,
                                   n_positions=256),
    "smollm3": lambda: _square("SmolLM3", no_rope_layers=[1, 0, 1]),
    "gpt2": lambda: _config("GPT2", n_embd=32, n_layer=3, n_head=4, n_positions=256),
    "gpt2-scaled": lambda: _config("GPT2", n_embd=32, n_layer=3, n_head=4, n_positions=256,
                                   scale_attn_by_inverse_layer_idx=True,
                                   reorder_and_upcast_attn=True),
    "opt": lambda: _config("OPT", hidden_size=32, ffn_dim=48, num_hidden_layers=3,
                           num_attention_heads=4, max_position_embeddings=256,
                           word_embed_proj_dim=32),
    "opt-projected": lambda: _config("OPT", hidden_size=32, ffn_dim=48, num_hidden_layers=2,
                                     num_attention_heads=4, max_position_embeddings=256,
                                     word_embed_proj_dim=24, do_layer_norm_before=False),
    "gpt-neox": lambda: _config("GPTNeoX", hidden_size=64, intermediate_size=80,
                                num_hidden_layers=3, num_attention_heads=4, rotary_pct=0.25,
                                max_position_embeddings=256),
    "olmo2": lambda: _square("Olmo2"),
    "stablelm": lambda: _square("StableLm", use_qkv_bias=True, qk_layernorm=True,
                                partial_rotary_factor=0.5),
    "cohere": lambda: _square("Cohere", logit_scale=0.4, use_qk_norm=True),
    "mixtral": lambda: _square("Mixtral", num_local_experts=5, num_experts_per_tok=2,
                               sliding_window=WINDOW),
    "mixtral-unaligned": lambda: _llama_like("Mixtral", num_local_experts=4, hidden_size=36,
                                             intermediate_size=30, sliding_window=None),
    "qwen3-moe": lambda: _llama_like("Qwen3Moe", num_experts=4, num_experts_per_tok=2,
                                     moe_intermediate_size=16, norm_topk_prob=True),
    "olmoe": lambda: _square("Olmoe", num_experts=6, num_experts_per_tok=3, norm_topk_prob=False),
    "granite-moe": lambda: _llama_like("GraniteMoe", num_local_experts=5, num_experts_per_tok=3,
                                       embedding_multiplier=1.5, residual_multiplier=0.7,
                                       logits_scaling=2.0, attention_multiplier=0.3),
    "granite-moe-shared": lambda: _square("GraniteMoeShared", num_local_experts=5,
                                          num_experts_per_tok=3, shared_intermediate_size=24,
                                          residual_multiplier=0.7),
    "qwen2-moe": lambda: _square("Qwen2Moe", num_experts=5, num_experts_per_tok=2,
                                 moe_intermediate_size=16, shared_expert_intermediate_size=24,
                                 norm_topk_prob=False),
    "cohere2": lambda: _square("Cohere2", sliding_window=WINDOW, layer_types=MIXED,
                               logit_scale=0.4),
    "gpt-oss": lambda: _llama_like("GptOss", num_local_experts=5, num_experts_per_tok=2,
                                   sliding_window=WINDOW, layer_types=MIXED,
                                   rope_parameters=YARN | {"beta_fast": 32.0, "beta_slow": 1.0,
                                                           "truncate": False}),
    "llama-dynamic": lambda: _llama_like("Llama", rope_parameters=DYNAMIC,
                                         max_position_embeddings=40),
    "phi3-longrope": lambda: _square("Phi3", rope_parameters=LONGROPE,
                                     original_max_position_embeddings=40),
}

# Exported with uncached=True only.
PLAIN_CONFIGS: dict[str, Build] = {
    "bloom": lambda: _config("Bloom", hidden_size=32, n_layer=2, n_head=4),
    "falcon-alibi": lambda: _config("Falcon", hidden_size=32, num_hidden_layers=2,
                                    num_attention_heads=4, alibi=True,
                                    new_decoder_architecture=False),
    "mamba": lambda: _config("Mamba", hidden_size=16, num_hidden_layers=2, state_size=4),
    "gpt-neo": lambda: _config("GPTNeo", hidden_size=32, num_layers=2, num_heads=4,
                               attention_types=[[["global", "local"], 1]], window_size=WINDOW,
                               max_position_embeddings=256),
    "gptj": lambda: _config("GPTJ", n_embd=32, n_layer=2, n_head=4, rotary_dim=4,
                            n_positions=256),
    "bart-decoder": lambda: _config("Bart", d_model=32, decoder_layers=2, decoder_ffn_dim=48,
                                    decoder_attention_heads=4, max_position_embeddings=256,
                                    is_decoder=True, is_encoder_decoder=False),
    "jamba": lambda: _square("Jamba", attn_layer_period=2, attn_layer_offset=1,
                             expert_layer_period=2, expert_layer_offset=1, num_experts=4,
                             mamba_d_state=4, mamba_expand=2, use_mamba_kernels=False,
                             num_hidden_layers=2),
    "deepseek-v3": lambda: _config("DeepseekV3", hidden_size=32, intermediate_size=48,
                              moe_intermediate_size=16, num_hidden_layers=2,
                              num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4,
                              n_group=1, topk_group=1, num_experts_per_tok=2, kv_lora_rank=8,
                              q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=8,
                              v_head_dim=8, first_k_dense_replace=1,
                              max_position_embeddings=256),
}

# Refused in either form.
REFUSED_CONFIGS: dict[str, Build] = {
    "rwkv": lambda: _config("Rwkv", hidden_size=16, num_hidden_layers=2, attention_hidden_size=16),
}


def build(config: transformers.PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A random causal language model, float32, eager attention, evaluation mode."""
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager")
    # A loop over experts; the default, grouped_mm, is what the exporter traces.
    model.config._experts_implementation = "eager"
    randomize(model, seed)
    return model.eval()


def llama_to_weigh(layers: int) -> PreTrainedModel:
    """3.4 million weights a layer, so that a few layers are most of what a process holds."""
    return build(transformers.LlamaConfig(
        vocab_size=1024, hidden_size=512, intermediate_size=1536, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=128))


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Draws every parameter anew: matrices 1/sqrt(width) wide, everything else around its value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embed" in name or name.endswith(("wte.weight", "wpe.weight")):
                parameter.copy_(0.3 * noise)
            elif parameter.dim() >= 2:
                parameter.copy_(1.2 * noise / parameter.shape[-1] ** 0.5)
            elif name.endswith("weight"):
                parameter.copy_(1.0 + 0.3 * noise)
            else:
                parameter.copy_(0.5 * noise)


def tiny_tokenizer(adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of VOCABULARY ids at most, as GPT-2 and SmolLM2 have.

    Ids: 0 <pad>, 1 <s>, 2 </s>, then the 256 bytes, then a few merges.
    """
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<pad>", "<s>", "</s>", *alphabet]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "a"), ("a", "n"),
              ("an", "d"), ("Ġ", "and"), ("e", "r"), ("Ġ", "s"), ("o", "u"), ("y", "ou")]
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    if adds_bos:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>",
                                   pad_token="<pad>")
