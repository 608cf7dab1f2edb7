"""Fused operators: what an export fuses is counted, scores stay right, kernels compute what their
definitions say.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch
import transformers
from lmfusion.exporter import export
from torch.nn import functional
from transformers.models.cohere2 import modeling_cohere2
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama
from transformers.models.mixtral import modeling_mixtral
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen2_moe import modeling_qwen2_moe

PATHS = [[1, 5, 9, 200, 31, 7, 7], [1, 5, 9, 17], [1, 8], [1, *range(20, 60)]]
TOLERANCE = 1e-4  # nats per token

GATED = {"normalize": 2, "linear": 2, "rotary_attention": 1, "linear_add": 2, "gate": 1}
NORMS_BEFORE_RESIDUALS = {"normalize": 4, "linear": 4, "rotary_attention": 1, "gate": 1}
EXPERTS = {"normalize": 2, "linear": 2, "rotary_attention": 1, "linear_add": 1, "experts": 1}
# The shared expert's products and its gate's, the gates and ups of which are one with the gate's.
SHARED = {**EXPERTS, "linear": 3, "linear_add": 2, "gate": 1}
PARALLEL = {"normalize": 1, "linear": 1, "rotary_attention": 1, "linear_add": 2, "gate": 1}

# name -> operators of a layer, all of them: what is not in lmfusion:: runs as it was traced.
LAYER_OPERATORS: dict[str, dict[str, int]] = {
    **dict.fromkeys(tiny_models.TREE_CONFIGS, GATED),
    **dict.fromkeys(("gemma2", "gemma3"), NORMS_BEFORE_RESIDUALS),
    # Queries and keys are normalised as a whole, so each is cut out before.
    "olmo2": {**NORMS_BEFORE_RESIDUALS, "aten::slice": 2},
    **dict.fromkeys(("phi", "cohere", "cohere2"), PARALLEL),
    **dict.fromkeys(("mixtral", "mixtral-unaligned", "qwen3-moe", "gpt-oss"), EXPERTS),
    "olmoe": {**EXPERTS, "normalize": 4, "aten::slice": 2},
    # Scaled, which the operator of experts does not do.
    "granite-moe": {**EXPERTS, "aten::add": 1},
    "granite-moe-shared": {**SHARED, "aten::add": 1},
    # A number a token, a column of the product, gates what goes into the shared expert's last one.
    "qwen2-moe": {**SHARED, "aten::slice": 1, "aten::sigmoid": 1, "aten::mul": 1},
}
# On the CPU, a norm and the product of it are one operator, and so are all of a feed-forward layer
# that is made of whole blocks of 32.
FED_FORWARD = {"normalized_linear": 1, "rotary_attention": 1, "linear_add": 1, "feed_forward": 1}
BLOCKS_WITH_RESTS = {"normalized_linear": 2, "rotary_attention": 1, "linear_add": 2, "gate": 1}
WHOLE_BLOCKS = ("qwen2", "qwen2-mixed", "granite", "phi3", "phi3-longrope", "starcoder2", "glm",
                "gpt-bigcode", "smollm3", "gpt2", "gpt2-scaled", "stablelm")
CPU_OPERATORS: dict[str, dict[str, int]] = {
    **{name: BLOCKS_WITH_RESTS for name, of in LAYER_OPERATORS.items() if of is GATED},
    **dict.fromkeys(WHOLE_BLOCKS, FED_FORWARD),
    # Its norms stand behind residuals, which need them too.
    "opt-projected": GATED,
    **{name: {**of, "normalize": 2, "linear": 2, "normalized_linear": 2}
       for name, of in LAYER_OPERATORS.items() if of is NORMS_BEFORE_RESIDUALS},
    "olmo2": {**LAYER_OPERATORS["olmo2"], "linear": 2, "gate": 0, "feed_forward": 1},
    # A norm of several products stays.
    **{name: {**of, "normalize": of["normalize"] - 1, "linear": of["linear"] - 1,
              "normalized_linear": 1}
       for name, of in LAYER_OPERATORS.items() if of is PARALLEL or "experts" in of},
}
# Behind the first product of the graph there is one norm less, before it as a rule, and there are
# these, once for all layers: a product of the embeddings (its sum with positions stays), cos and
# sin for each element of a head, a view of the result.
ONCE = {"opt-projected": {"linear": 2, "aten::to": 1, "aten::add": 1},
        "glm": {"aten::slice": 2, "aten::stack": 2, "aten::flatten": 2},
        "gpt-oss": {"aten::cat": 2},
        **{name: {"aten::view": 1} for name in ("gpt2", "gpt2-scaled", "gpt-bigcode")}}
FIRST_IS_A_PRODUCT = ("olmo2", "opt-projected")


PRODUCTS = ("lmfusion::linear", "lmfusion::normalized_linear")


def operators_of_layers() -> Counter[str]:
    """Operators of the graph this thread ran last, from its first product on; sizes and views of
    a new dimension are left out.
    """
    text = str(torch.jit.last_executed_optimized_graph())
    kinds = re.findall(r" = ((?:lmfusion|aten|prim)::\w+)[\[(]", text)
    kinds = [kind.replace("lmfusion::narrow_", "lmfusion::") for kind in kinds]  # of a device
    kinds = kinds[min(kinds.index(kind) for kind in PRODUCTS if kind in kinds):]
    ignored = {"prim::Constant", "prim::GetAttr", "prim::ListConstruct", "aten::size",
               "aten::unsqueeze", "aten::squeeze"}
    return Counter(kind.removeprefix("lmfusion::") for kind in kinds if kind not in ignored)


def reference(model: torch.nn.Module) -> list[list[float]]:
    with torch.no_grad():
        return [model(input_ids=torch.tensor([path])).logits[0].log_softmax(-1)[:-1]
                .gather(1, torch.tensor(path[1:])[:, None])[:, 0].tolist() for path in PATHS]


def difference(wanted: list[list[float]], got: list[list[float]]) -> float:
    return max(abs(a - b) for row, other in zip(wanted, got, strict=True)
               for a, b in zip(row, other, strict=True))


def run_exported(model: torch.nn.Module, folder: Path, device: str = "cpu"
                 ) -> tuple[Counter[str], lmfusion.Stats]:
    """Operators of the layers of a model once exported, the scores of which are held to `model`."""
    bundle = folder / "model.lmf"
    if not bundle.exists():
        export(model, None, bundle)
    scorer = lmfusion.LMFusionScorer(bundle, device=device)
    got = scorer.score_token_paths(PATHS, [1] * len(PATHS))
    operators = operators_of_layers()
    assert difference(reference(model), got) <= TOLERANCE
    return operators, scorer.stats()


@pytest.mark.parametrize("name", LAYER_OPERATORS)
def test_layers_are_fused(name: str, tmp_path: Path) -> None:
    """Few operators on a device, and fewer on the CPU."""
    model = tiny_models.build(short_paths(tiny_models.TREE_CONFIGS[name]()))
    layers = model.config.num_hidden_layers

    def all_of(table: dict[str, dict[str, int]]) -> Counter[str]:
        return Counter({kind: layers * count for kind, count in table[name].items()}) + Counter(
            ONCE.get(name, {}))

    wanted = all_of(LAYER_OPERATORS)
    wanted["normalize"] += name == "olmo2"
    operators, _ = run_exported(model, tmp_path, "emulated")
    assert operators == wanted
    operators, stats = run_exported(model, tmp_path, "cpu")
    assert operators == joined(all_of(CPU_OPERATORS), name)
    products = wanted["linear"] + wanted["linear_add"] + 2 * wanted["experts"]
    assert (stats.packed_linears, stats.plain_linears) == (products, 0)
    fused = ("normalize", "rotary_attention", "linear_add", "gate", "experts")
    assert stats.fused_operators == sum(wanted[kind] for kind in fused) + (
        name not in FIRST_IS_A_PRODUCT)


def joined(layers: Counter[str], name: str) -> Counter[str]:
    """With the last norm of the model, which is joined to a product where one follows."""
    if name != "opt-projected":
        return layers + Counter({"normalize": 1})
    return layers - Counter({"normalize": 1, "linear": 1}) + Counter({"normalized_linear": 1})


def short_paths(config: transformers.PretrainedConfig) -> transformers.PretrainedConfig:
    """Rotary frequencies for more positions than PATHS have."""
    rope = getattr(config, "rope_parameters", None) or {}
    if config.max_position_embeddings == 40:
        config.max_position_embeddings = 64
    if rope.get("original_max_position_embeddings") == 40:
        rope["original_max_position_embeddings"] = 64
    if getattr(config, "original_max_position_embeddings", None) == 40:
        config.original_max_position_embeddings = 64
    return config


# Models that are nearly those of the patterns: each changes one thing that a careless pattern would
# not see. The oracle is the changed model.
def turned_the_other_way(x: torch.Tensor) -> torch.Tensor:
    first, second = x[..., :x.shape[-1] // 2], x[..., x.shape[-1] // 2:]
    return torch.cat((second, -first), dim=-1)


def turned_in_unequal_parts(x: torch.Tensor) -> torch.Tensor:
    first, second = x[..., :x.shape[-1] // 3], x[..., x.shape[-1] // 3:]
    return torch.cat((-second, first), dim=-1)


def pairs_turned_the_other_way(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[..., 1::2], -x[..., ::2]], dim=-1).flatten(-2)


def even_elements_twice(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([-x[..., ::2], x[..., ::2]], dim=-1).flatten(-2)


def keys_at_other_angles(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
                         **_: object) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    turn = modeling_llama.rotate_half
    return q * cos + turn(q) * sin, k * sin + turn(k) * cos


def clamped_queries(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
                    **_: object) -> tuple[torch.Tensor, torch.Tensor]:
    """As OLMo's `clip_qkv`: nothing that the queries of these texts reach."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    turn = modeling_llama.rotate_half
    return (q * cos + turn(q) * sin).clamp(-30, 30), k * cos + turn(k) * sin


def rotated_part_behind(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
                        **_: object) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    width = cos.shape[-1]
    return tuple(torch.cat([x[..., width:], x[..., :width] * cos
                            + modeling_glm.rotate_half(x[..., :width]) * sin], dim=-1)
                 for x in (q, k))


def norm_by_other_squares(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    square = (x + 0.1).pow(2).mean(-1, keepdim=True)
    return self.weight * (x * torch.rsqrt(square + self.variance_epsilon))


def norm_of_another_power(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return self.weight * (x * torch.rsqrt(x.pow(4).mean(-1, keepdim=True) + self.variance_epsilon))


def layer_norm_by_other_centres(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - 0.5 * mean).pow(2).mean(-1, keepdim=True)
    return self.weight * ((x - mean) * torch.rsqrt(variance + self.variance_epsilon))


def activations_and_sum(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    activations = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
    return self.down_proj(activations) + 0.1 * activations.mean(-1, keepdim=True)


def product_scaled_by_a_vector(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    scale = torch.linspace(0.5, 1.5, x.shape[-1])
    return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) * scale


def sigmoid_gate(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return self.down_proj(torch.sigmoid(self.gate_proj(x)) * self.up_proj(x))


def other_gelu(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    inner = 0.7978845608028654 * (x + 0.05 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


def other_experts(self: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Routed by another power of the probabilities."""
    rows = hidden.view(-1, hidden.shape[-1])
    logits = functional.linear(rows, self.gate.weight)
    weights, chosen = (1.1 * logits).softmax(-1).topk(self.top_k, -1)
    return self.experts(rows, chosen, weights / weights.sum(-1, keepdim=True)).view(hidden.shape)


def softly_gated(self: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """A shared expert gated by softsign in place of the sigmoid."""
    rows = hidden.view(-1, hidden.shape[-1])
    _, weights, chosen = self.gate(rows)
    shared = (1 + functional.softsign(self.shared_expert_gate(rows))) / 2 * self.shared_expert(rows)
    return (self.experts(rows, chosen, weights) + shared).view(hidden.shape)


# name -> model, what is changed, the change; operators that say what was left as it is.
HEADS_AS_THEY_ARE = {"tree_attention": 3, "rotary_attention": 0}
NEAR_MISSES: dict[str, tuple[str, object, str, Callable, dict[str, int]]] = {
    "halves turned the other way": ("llama", modeling_llama, "rotate_half", turned_the_other_way,
                                    {**HEADS_AS_THEY_ARE, "aten::neg": 6, "gate": 3}),
    "unequal parts": ("llama", modeling_llama, "rotate_half", turned_in_unequal_parts,
                      {**HEADS_AS_THEY_ARE, "aten::neg": 6}),
    # One of Cohere 2's three layers does not rotate.
    "pairs turned the other way": ("cohere2", modeling_cohere2, "rotate_half",
                                   pairs_turned_the_other_way,
                                   {"tree_attention": 2, "rotary_attention": 1, "aten::neg": 4}),
    "even elements twice": ("cohere2", modeling_cohere2, "rotate_half", even_elements_twice,
                            {"tree_attention": 2, "rotary_attention": 1, "aten::neg": 4}),
    "keys at other angles": ("llama", modeling_llama, "apply_rotary_pos_emb",
                             keys_at_other_angles, HEADS_AS_THEY_ARE),
    "clamped queries": ("llama", modeling_llama, "apply_rotary_pos_emb", clamped_queries,
                        {**HEADS_AS_THEY_ARE, "aten::clamp": 3}),
    "rotated part behind": ("glm", modeling_glm, "apply_rotary_pos_emb", rotated_part_behind,
                            {**HEADS_AS_THEY_ARE, "aten::cat": 6}),
    "norm by other squares": ("llama", modeling_llama.LlamaRMSNorm, "forward",
                              norm_by_other_squares, {"aten::rsqrt": 6, "normalize": 0}),
    "norm of another power": ("llama", modeling_llama.LlamaRMSNorm, "forward",
                              norm_of_another_power, {"aten::rsqrt": 6, "normalize": 0}),
    "layer norm by other centres": ("cohere2", modeling_cohere2.Cohere2LayerNorm, "forward",
                                    layer_norm_by_other_centres,
                                    {"aten::rsqrt": 3, "normalize": 0}),
    "product scaled by a vector": ("llama", modeling_llama.LlamaMLP, "forward",
                                   product_scaled_by_a_vector,
                                   {"aten::add": 6, "linear_add": 3, "gate": 3}),
    "another gate": ("llama", modeling_llama.LlamaMLP, "forward", sigmoid_gate,
                     {"aten::sigmoid": 3, "gate": 0}),
    "activations read twice": ("qwen2", modeling_qwen2.Qwen2MLP, "forward", activations_and_sum,
                               {"gate": 3, "feed_forward": 0, "normalized_linear": 6}),
    "another GELU": ("gpt2", transformers.activations.NewGELUActivation, "forward", other_gelu,
                     {"aten::tanh": 3, "gate": 0}),
    "other experts": ("mixtral", modeling_mixtral.MixtralSparseMoeBlock, "forward", other_experts,
                      {"experts": 0, "aten::softmax": 3, "rotary_attention": 3}),
    "another gate of a shared expert": ("qwen2-moe", modeling_qwen2_moe.Qwen2MoeSparseMoeBlock,
                                        "forward", softly_gated,
                                        {"experts": 3, "linear_add": 3, "aten::sigmoid": 0}),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_what_is_nearly_a_pattern_runs_as_exported(
        name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, owner, attribute, change, wanted = NEAR_MISSES[name]
    monkeypatch.setattr(owner, attribute, change)
    model = tiny_models.build(tiny_models.TREE_CONFIGS[architecture]())
    operators, _ = run_exported(model, tmp_path)
    assert {kind: operators[kind] for kind in wanted} == wanted


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_other_gates_are_fused(activation: str, tmp_path: Path) -> None:
    config = tiny_models.TREE_CONFIGS["gemma"]()
    config.hidden_act = config.hidden_activation = activation
    config.intermediate_size = 64
    operators, _ = run_exported(tiny_models.build(config), tmp_path)
    layers = Counter({kind: 3 * count for kind, count in FED_FORWARD.items()})
    assert operators == joined(layers, "gemma")


@pytest.mark.parametrize(("architecture", "settings", "wanted"), [
    # Its second layer has no experts.
    ("Qwen2Moe", {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                  "shared_expert_intermediate_size": 24, "norm_topk_prob": True,
                  "mlp_only_layers": [1]},
     {"experts": 2, "linear": 4, "linear_add": 5, "feed_forward": 1}),
    # The router is a module in the one that chooses, and reads its own weight's type.
    ("HunYuanMoEV1", {"num_experts": 5, "moe_topk": 2, "num_shared_expert": 1},
     {"experts": 3, "linear": 6, "linear_add": 3, "feed_forward": 3}),
], ids=["not in every layer", "the router in a module"])
def test_experts_in_modules_that_compute_more(
        architecture: str, settings: dict[str, object], wanted: dict[str, int],
        tmp_path: Path) -> None:
    config = getattr(transformers, architecture + "Config")(
        vocab_size=tiny_models.VOCABULARY, hidden_size=48, intermediate_size=64,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, head_dim=12, pad_token_id=0, **settings)
    operators, _ = run_exported(tiny_models.build(config), tmp_path)
    assert {kind: operators[kind] for kind in wanted} == wanted
    assert operators["aten::topk"] == operators["aten::_grouped_mm"] == 0


def numbers(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def assert_near(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("x", [numbers(1, 7, 40), numbers(40), numbers(2, 3, 5, 40),
                               numbers(1, 7, 100)[..., 30:70], numbers(1, 40, 7).mT],
                         ids=["rows", "one row", "many dimensions", "columns", "transposed"])
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("has", ["nothing", "weight", "weight and bias"])
@pytest.mark.parametrize("residual", ["none", "full", "broadcast"])
@pytest.mark.parametrize("by_definition", [False, True])
def test_normalize(x: torch.Tensor, centered: bool, has: str, residual: str,
                   by_definition: bool) -> None:
    x = 3 * x + 1
    weight = numbers(40, seed=1) if "weight" in has else None
    bias = numbers(40, seed=2) if "bias" in has else None
    added = {"none": None, "full": numbers(*x.shape, seed=3),
             "broadcast": numbers(1, seed=4)}[residual]
    got = called(torch.ops.lmfusion.normalize, by_definition, x, weight, bias, added, 1e-3,
                 centered)
    wanted = (functional.layer_norm(x, [40], weight, None, 1e-3) if centered
              else functional.rms_norm(x, [40], weight, 1e-3))
    for addend in (bias, added):
        wanted = wanted if addend is None else wanted + addend
    assert_near(got, wanted)


ACTIVATIONS = {"silu": functional.silu, "gelu": functional.gelu, "relu": functional.relu,
               "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh")}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("by_definition", [False, True])
def test_gate(activation: str, by_definition: bool) -> None:
    gate = functools.partial(called, torch.ops.lmfusion.gate, by_definition)
    plain = ACTIVATIONS[activation]
    x = 4 * numbers(1, 6, 50)
    assert_near(gate(x, None, activation, 0, 0, 50), plain(x))
    assert_near(gate(x, None, activation, 7, 0, 24), plain(x[..., 7:31]))
    assert_near(gate(x, x + 1, activation, 0, 0, 50), plain(x) * (x + 1))
    assert_near(gate(x, x, activation, 3, 27, 20), plain(x[..., 3:23]) * x[..., 27:47])
    with pytest.raises((RuntimeError, IndexError)):
        gate(x, x, activation, 3, 31, 20)


def called(operator: object, by_definition: bool, *arguments: object) -> torch.Tensor:
    """What an operator of lmfusion gives on the CPU, by its kernel or by its definition."""
    if not by_definition:
        return operator(*arguments)
    return operator.default._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *arguments)


BATCH = 6  # tokens: a chain of four, and two that branch off its second
SLOTS = torch.tensor([3, 1, 6, 2, 5, 4], dtype=torch.int32)
POSITIONS = torch.tensor([0, 1, 2, 3, 2, 2])
SEGMENTS = torch.tensor([[0, 2, 0, 6, 0], [2, 4, 2, 4, 2], [4, 5, 4, 5, 2], [5, 6, 5, 6, 2]],
                        dtype=torch.int32)
ANCESTORS = ((0,), (0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 4), (0, 1, 5))


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float,
             sinks: torch.Tensor | None) -> torch.Tensor:
    """Softmax attention along the paths of the batch: [T, heads, dim] -> [T, heads * dim]."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    rows = []
    for token, seen in enumerate(ANCESTORS):
        scores = scale * torch.einsum("hd,khd->hk", q[token], k[list(seen)])
        if sinks is not None:
            scores = torch.cat((scores, sinks[:, None]), dim=1)
        weights = scores.softmax(-1)[:, :len(seen)]
        rows.append(torch.einsum("hk,khd->hd", weights, v[list(seen)]).flatten())
    return torch.stack(rows)


def normalised(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float,
               centered: bool) -> torch.Tensor:
    if weight is None:
        return x
    norm = functional.layer_norm if centered else functional.rms_norm
    return norm(x, x.shape[-1:], eps=epsilon) * weight


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
            interleaved: bool) -> torch.Tensor:
    """Complex numbers, turned: heads [T, heads, dim] by angles [T, n]."""
    n = cos.shape[-1]
    part = x[..., :n]
    part = part.unflatten(-1, (-1, 2)) if interleaved else part.unflatten(-1, (2, -1)).mT
    once = slice(None, None, 2) if interleaved else slice(n // 2)
    turn = torch.complex(cos[:, None, once].contiguous(), sin[:, None, once].contiguous())
    turned = torch.view_as_real(torch.view_as_complex(part.contiguous()) * turn)
    turned = turned if interleaved else turned.mT
    return torch.cat((turned.flatten(-2), x[..., n:]), dim=-1)


@pytest.mark.parametrize("norm", ["none", "one weight", "a weight a head"])
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("n", [0, 8, 16])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("by_definition", [False, True])
def test_rotary_attention(norm: str, centered: bool, n: int, interleaved: bool,
                          by_definition: bool) -> None:
    heads, kv_heads, dim = 4, 2, 16
    product = numbers(1, BATCH, 8 + (heads + 2 * kv_heads) * dim)
    columns = [8, 72, 72, 104, 104, 136]
    q, k, v = (product[0, :, begin:end].unflatten(-1, (-1, dim))
               for begin, end in zip(columns[::2], columns[1::2]))
    weights = [None if norm == "none" else numbers(dim, seed=count) if norm == "one weight"
               else numbers(count, dim, seed=count) for count in (heads, kv_heads)]
    cos = sin = None
    if n:
        angles = numbers(BATCH, n // 2, seed=7)
        angles = angles.repeat_interleave(2, 1) if interleaved else angles.repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()
    sinks = numbers(heads, seed=8) if n == 8 else None
    kv = torch.zeros(2, 2, 8, kv_heads, dim)
    got = called(torch.ops.lmfusion.rotary_attention, by_definition, product, product, product,
                 columns, weights[0], 1e-3, weights[1], 1e-5, centered, cos, sin, interleaved,
                 sinks, kv, POSITIONS, SLOTS, SEGMENTS, SLOTS, 1, 0.3, 0, 0.0)
    q, k = (normalised(x, weight, epsilon, centered)
            for x, weight, epsilon in ((q, weights[0], 1e-3), (k, weights[1], 1e-5)))
    if n:
        q, k = (rotated(x, cos, sin, interleaved) for x in (q, k))
    assert_near(got, attended(q, k, v, 0.3, sinks)[None])
    assert_near(kv[1, :, SLOTS.long()], torch.stack((k, v)))


@pytest.mark.parametrize("activation", ["silu", "relu", "clamped_silu"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_experts(activation: str, normalized: bool, biased: bool, added: bool) -> None:
    """The definition against experts chosen and applied one by one."""
    count, hidden, inner, top_k = 5, 12, 10, 2
    x, logits = 3 * numbers(1, 7, hidden), numbers(1, 7, count, seed=1)
    gate_up = numbers(count * 2 * inner, hidden, seed=2)
    down = numbers(count * hidden, inner, seed=3)
    biases = [numbers(matrix.shape[0], seed=4) if biased else None for matrix in (gate_up, down)]
    residual = numbers(1, 7, hidden, seed=5) if added else None
    got = torch.ops.lmfusion.experts(x, logits, gate_up, biases[0], down, biases[1], residual,
                                     activation, count, top_k, normalized)
    wanted = torch.zeros(7, hidden) if residual is None else residual[0].clone()
    for token in range(7):
        chosen = logits[0, token].sort(descending=True).indices[:top_k].tolist()
        weights = logits[0, token].softmax(0)[chosen]
        for expert, weight in zip(chosen, weights / weights.sum() if normalized else weights):
            gate, up = (gate_up.unflatten(0, (count, 2, inner))[expert] @ x[0, token]).unbind()
            if biased:
                gate, up = (part + bias for part, bias in zip(
                    (gate, up), biases[0].unflatten(0, (count, 2, inner))[expert]))
            if activation == "clamped_silu":
                gate, up = gate.clamp(max=7), up.clamp(-7, 7) + 1
                gated = gate * torch.sigmoid(1.702 * gate) * up
            else:
                gated = ACTIVATIONS[activation](gate) * up
            out = down.unflatten(0, (count, hidden))[expert] @ gated
            if biased:
                out = out + biases[1].unflatten(0, (count, hidden))[expert]
            wanted[token] += weight * out
    torch.testing.assert_close(got[0], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("compute", "bound"), [("bfloat16", 0.3), ("int8", 0.6), ("int4", 4.0)])
@pytest.mark.parametrize("name", ["mixtral", "gpt-oss"])
def test_experts_in_every_type(name: str, compute: str, bound: float, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS[name]())
    bundle = export(model, None, tmp_path / "model.lmf")
    for device in ("cpu", "emulated"):
        scorer = lmfusion.LMFusionScorer(bundle, compute=compute, device=device)
        got = scorer.score_token_paths(PATHS, [1] * len(PATHS))
        assert 0 < difference(reference(model), got) <= bound


@pytest.mark.parametrize(("compute", "bound"), [("bfloat16", 0.15), ("int8", 0.3), ("int4", 3.0)])
def test_narrow_types_are_near_and_differ(compute: str, bound: float, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    bundle = export(model, None, tmp_path / "model.lmf")
    scorer = lmfusion.LMFusionScorer(bundle, compute=compute)
    got = scorer.score_token_paths(PATHS, [1] * len(PATHS))
    assert 0 < difference(reference(model), got) <= bound  # random weights: worse than trained ones


def test_compute_of_a_plain_model_is_float32(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    bundle = export(model, None, tmp_path / "model.lmf", uncached=True)
    with pytest.raises(ValueError, match="compute"):
        lmfusion.LMFusionScorer(bundle, compute="int8")


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_one_graph_runs_whatever_the_size_of_a_batch(device: str, tmp_path: Path) -> None:
    """Calls 1 to 20, each of another size: TorchScript made one graph at the first and no more.

    Its profiling executor would run one graph that records shapes, then others for the shapes it
    met, each compiled in the middle of a call.
    """
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    scorer = lmfusion.LMFusionScorer(export(model, None, tmp_path / "model.lmf"), device=device)
    graphs = []  # held, so that none can take another's place in memory
    for call in range(1, 21):
        scorer.clear_cache()
        size = call * 7 % 23 + 2
        scorer.score_token_paths([[1, *range(3, 3 + size)]], [1])
        graphs.append(torch.jit.last_executed_optimized_graph())  # of this thread
    assert scorer.stats().forwards == 20
    assert "%tokens" in str(graphs[0])  # the forward pass of the model
    assert all(graph is graphs[0] for graph in graphs)
