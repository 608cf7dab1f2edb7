"""The passes over a model's graph: what is packed and fused is counted, and scores stay right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch
import transformers
from lmfusion.export import export
from torch.nn import functional
from transformers.models.cohere2 import modeling_cohere2
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama

PATHS = [[1, 5, 9, 200, 31, 7, 7], [1, 5, 9, 17], [1, 8], [1, *range(20, 60)]]
TOLERANCE = 1e-4  # nats per token

LAYERS = 3
GATED = {"normalize": 2, "linear": 2, "rotary_attention": 1, "linear_add": 2, "silu_mul": 1}
GELU = {"normalize": 2, "linear": 2, "rotary_attention": 1, "linear_add": 2, "gelu_tanh": 1}
NORMS_BEFORE_RESIDUALS = {"normalize": 4, "linear": 4, "rotary_attention": 1}
PARALLEL = {"normalize": 1, "linear": 1, "rotary_attention": 1, "linear_add": 2}

# name -> operators of a layer, all of them: what is not in lmfusion:: runs as it was exported.
LAYER_OPERATORS: dict[str, dict[str, int]] = {
    "llama": GATED,
    "llama-tied-biases": GATED,
    "qwen2": GATED,
    "qwen3": GATED,  # norms of queries and keys too, inside the attention
    "mistral": GATED,
    "phi3": GATED,  # one product for q, k, v and one for gate and up in the checkpoint
    "granite": GATED,  # residuals are scaled
    "smollm3": GATED,  # a layer without rotation
    "gemma": {**GATED, "silu_mul": 0, "gelu_tanh_mul": 1},
    "gemma2": {**NORMS_BEFORE_RESIDUALS, "gelu_tanh_mul": 1},
    "gemma3": {**NORMS_BEFORE_RESIDUALS, "gelu_tanh_mul": 1},
    # Queries and keys are normalised as a whole, so each is cut out before.
    "olmo2": {**NORMS_BEFORE_RESIDUALS, "silu_mul": 1, "aten::slice": 2},
    "gpt2": GELU,  # GELU written out; products of flattened rows
    "starcoder2": GELU,
    "cohere2": {**PARALLEL, "silu_mul": 1},  # pairs are rotated; its own layer norm
    "phi": {**PARALLEL, "gelu_tanh": 1, "aten::slice": 1},  # heads are rotated in part
    # A weight for each head: those norms are fused, their weights are not.
    "cohere": {**PARALLEL, "silu_mul": 1, "normalize": 3, "aten::slice": 2, "aten::view": 2,
               "aten::mul": 2, "aten::flatten": 2},
    # The parts of its one product are cut out of every head.
    "gpt-neox": {"normalize": 2, "linear": 2, "rotary_attention": 1, "linear_add": 2,
                 "aten::gelu": 1, "aten::view": 1, "aten::transpose": 4,
                 "aten::chunk": 1, "prim::ListUnpack": 1, "aten::flatten": 3},
}


def operators_of_layers() -> Counter[str]:
    """Operators of the graph this thread ran last, from its first product on; sizes and views of
    a new dimension are left out.
    """
    text = str(torch.jit.last_executed_optimized_graph())
    kinds = re.findall(r" = ((?:lmfusion|aten|prim)::\w+)[\[(]", text)
    kinds = kinds[kinds.index("lmfusion::linear"):]
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


def run_exported(model: torch.nn.Module, folder: Path) -> tuple[Counter[str], lmfusion.Stats]:
    """Operators of the layers of a model once exported, the scores of which are held to `model`."""
    scorer = lmfusion.LMFusionScorer(export(model, None, folder / "model.lmf"))
    got = scorer.score_token_paths(PATHS, [1] * len(PATHS))
    operators = operators_of_layers()
    assert difference(reference(model), got) <= TOLERANCE
    return operators, scorer.stats()


@pytest.mark.parametrize("name", LAYER_OPERATORS)
def test_layers_are_fused(name: str, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS[name]())
    operators, stats = run_exported(model, tmp_path)
    layer = LAYER_OPERATORS[name]
    wanted = Counter({kind: LAYERS * count for kind, count in layer.items() if count})
    # Behind the first product there are the other layers' norms and the last one.
    first_is_a_product = name == "olmo2"
    wanted["normalize"] += first_is_a_product
    wanted["aten::view"] += name == "gpt2"  # of the result
    assert operators == wanted
    packed = {"phi3": 4, "gpt2": 4, "gpt-neox": 4, "starcoder2": 6, "phi": 6}.get(name, 7)
    assert (stats.packed_linears, stats.plain_linears) == (LAYERS * packed, 0)
    fused = ("normalize", "rotary_attention", "linear_add", "silu_mul", "gelu_tanh_mul",
             "gelu_tanh")
    assert stats.fused_operators == sum(operators[kind] for kind in fused) + (
        not first_is_a_product)


@pytest.mark.parametrize("name", ["glm", "gpt-bigcode", "stablelm", "opt", "gpt-oss", "mixtral"])
def test_what_is_fused_in_part_is_right(name: str, tmp_path: Path) -> None:
    operators, _ = run_exported(tiny_models.build(tiny_models.TREE_CONFIGS[name]()), tmp_path)
    assert operators["rotary_attention"] == LAYERS and operators["tree_attention"] == 0


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


def product_scaled_by_a_vector(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    scale = torch.linspace(0.5, 1.5, x.shape[-1])
    return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) * scale


def sigmoid_gate(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return self.down_proj(torch.sigmoid(self.gate_proj(x)) * self.up_proj(x))


def other_gelu(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    inner = 0.7978845608028654 * (x + 0.05 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


# name -> model, what is changed, the change; operators that say the pattern did not fire.
NEAR_MISSES: dict[str, tuple[str, object, str, Callable, dict[str, int]]] = {
    "halves turned the other way": ("llama", modeling_llama, "rotate_half", turned_the_other_way,
                                    {"aten::neg": 6}),
    "unequal parts": ("llama", modeling_llama, "rotate_half", turned_in_unequal_parts,
                      {"aten::neg": 6}),
    "pairs turned the other way": ("cohere2", modeling_cohere2, "rotate_half",
                                   pairs_turned_the_other_way, {"aten::neg": 4}),
    "even elements twice": ("cohere2", modeling_cohere2, "rotate_half", even_elements_twice,
                            {"aten::neg": 4}),
    "keys at other angles": ("llama", modeling_llama, "apply_rotary_pos_emb",
                             keys_at_other_angles, {"rotate": 6, "tree_attention": 3}),
    "rotated part behind": ("glm", modeling_glm, "apply_rotary_pos_emb", rotated_part_behind,
                            {"rotate": 6, "aten::cat": 6}),
    "norm by other squares": ("llama", modeling_llama.LlamaRMSNorm, "forward",
                              norm_by_other_squares, {"aten::rsqrt": 6, "normalize": 0}),
    "norm of another power": ("llama", modeling_llama.LlamaRMSNorm, "forward",
                              norm_of_another_power, {"aten::rsqrt": 6, "normalize": 0}),
    "layer norm by other centres": ("cohere2", modeling_cohere2.Cohere2LayerNorm, "forward",
                                    layer_norm_by_other_centres,
                                    {"aten::rsqrt": 3, "normalize": 0}),
    "product scaled by a vector": ("llama", modeling_llama.LlamaMLP, "forward",
                                   product_scaled_by_a_vector,
                                   {"aten::add": 3, "linear_add": 3}),
    "another gate": ("llama", modeling_llama.LlamaMLP, "forward", sigmoid_gate,
                     {"aten::sigmoid": 3, "silu_mul": 0, "gelu_tanh_mul": 0}),
    "another GELU": ("gpt2", transformers.activations.NewGELUActivation, "forward", other_gelu,
                     {"aten::tanh": 3, "gelu_tanh": 0}),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_what_is_nearly_a_pattern_runs_as_exported(
        name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, owner, attribute, change, wanted = NEAR_MISSES[name]
    monkeypatch.setattr(owner, attribute, change)
    model = tiny_models.build(tiny_models.TREE_CONFIGS[architecture]())
    operators, _ = run_exported(model, tmp_path)
    assert {kind: operators[kind] for kind in wanted} == wanted


def test_gelu_by_the_error_function_stays(tmp_path: Path) -> None:
    config = tiny_models.TREE_CONFIGS["gemma"]()
    config.hidden_act = config.hidden_activation = "gelu"
    operators, _ = run_exported(tiny_models.build(config), tmp_path)
    assert operators["aten::gelu"] == LAYERS and operators["gelu_tanh_mul"] == 0


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
def test_normalize(x: torch.Tensor, centered: bool, has: str, residual: str) -> None:
    x = 3 * x + 1
    weight = numbers(40, seed=1) if "weight" in has else None
    bias = numbers(40, seed=2) if "bias" in has else None
    added = {"none": None, "full": numbers(*x.shape, seed=3),
             "broadcast": numbers(1, seed=4)}[residual]
    got = torch.ops.lmfusion.normalize(x, weight, bias, added, 1e-3, centered)
    wanted = (functional.layer_norm(x, [40], weight, None, 1e-3) if centered
              else functional.rms_norm(x, [40], weight, 1e-3))
    for addend in (bias, added):
        wanted = wanted if addend is None else wanted + addend
    assert_near(got, wanted)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("n", [16, 6])
def test_rotate(interleaved: bool, n: int) -> None:
    x = numbers(1, 5, 3, 16).transpose(1, 2)  # [1, heads, T, dim]
    cos, sin = numbers(1, 1, 5, n, seed=1), numbers(1, 1, 5, n, seed=2)
    part = x[..., :n]
    if interleaved:
        turned = torch.stack((-part[..., 1::2], part[..., ::2]), -1).flatten(-2)
    else:
        turned = torch.cat((-part[..., n // 2:], part[..., :n // 2]), -1)
    wanted = torch.cat((part * cos + turned * sin, x[..., n:]), -1)
    assert_near(torch.ops.lmfusion.rotate(x, cos, sin, interleaved), wanted)


def test_activations_and_gates() -> None:
    x = 4 * numbers(1, 6, 50)
    assert_near(torch.ops.lmfusion.gelu_tanh(x[..., 7:31]),
                functional.gelu(x[..., 7:31], approximate="tanh"))
    gates = {torch.ops.lmfusion.silu_mul: functional.silu,
             torch.ops.lmfusion.gelu_tanh_mul: lambda z: functional.gelu(z, approximate="tanh")}
    for fused, plain in gates.items():
        assert_near(fused(x, x + 1), plain(x) * (x + 1))
        assert_near(fused(x, x, 3, 27, 20), plain(x[..., 3:23]) * x[..., 27:47])
        assert_near(fused(x, x[:, :1]), plain(x) * x[:, :1])  # broadcast
        with pytest.raises(RuntimeError, match="do not lie in"):
            fused(x, x, 3, 31, 20)


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
