"""Packed experts against Hugging Face's own modules, where routing is lopsided or whole, and the
same bits whatever shares the batch. tests/cpp/gated_experts_test.cpp holds the loops alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import lmfusion  # noqa: F401  the operators
import pytest
import torch
from lmfusion.exporter.fusion.experts import read_experts
from transformers import GptOssConfig, GraniteMoeConfig, MixtralConfig, Qwen3MoeConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP
from transformers.models.granitemoe.modeling_granitemoe import GraniteMoeMoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

COUNT, HIDDEN, INNER = 6, 72, 40

MODULES: dict[str, Callable[[int], torch.nn.Module]] = {
    "mixtral": lambda top_k: MixtralSparseMoeBlock(MixtralConfig(
        hidden_size=HIDDEN, intermediate_size=INNER, num_local_experts=COUNT,
        num_experts_per_tok=top_k)),
    "qwen3-moe": lambda top_k: Qwen3MoeSparseMoeBlock(Qwen3MoeConfig(
        hidden_size=HIDDEN, moe_intermediate_size=INNER, num_experts=COUNT,
        num_experts_per_tok=top_k, norm_topk_prob=False)),
    "gpt-oss": lambda top_k: GptOssMLP(GptOssConfig(
        hidden_size=HIDDEN, intermediate_size=INNER, num_local_experts=COUNT,
        num_experts_per_tok=top_k)),
    "granite-moe": lambda top_k: GraniteMoeMoE(GraniteMoeConfig(
        hidden_size=HIDDEN, intermediate_size=INNER, num_local_experts=COUNT,
        num_experts_per_tok=top_k)),
}
# What results of sizes up to 5 may be off.
BOUNDS = {"float32": 4e-6, "bfloat16": 0.03, "int8": 0.1, "int4": 0.7}


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def random_module(name: str, top_k: int, *, lopsided: bool) -> torch.nn.Module:
    """`lopsided`: every token whose first input is 1 chooses expert 2, and none chooses 4, unless
    it takes all.
    """
    torch.manual_seed(len(name) + top_k)
    module = MODULES[name](top_k).eval().requires_grad_(False)
    for submodule in module.modules():
        if hasattr(submodule, "config"):
            submodule.config._experts_implementation = "eager"
    for parameter in module.parameters():
        parameter.normal_(std=HIDDEN ** -0.5)
    if lopsided:
        router = next(parameter for parameter in module.parameters()
                      if parameter.shape == (COUNT, HIDDEN))
        router[2, 0], router[4, 0] = 6, -6
    return module


class Packed:
    """The module's experts, packed, and its router."""

    def __init__(self, module: torch.nn.Module, compute: str) -> None:
        part = read_experts(module)
        assert part is not None
        self.part = part
        self.weights = torch.classes.lmfusion.PackedExperts(
            part.gate_up_weight, part.gate_up_bias, part.down_weight, part.down_bias, COUNT,
            compute)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.lmfusion.linear(x, self.part.router_weight, self.part.router_bias)

    def sums(self, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        part = self.part
        return torch.ops.lmfusion.experts(x, logits, self.weights, None, part.activation, COUNT,
                                          part.top_k, part.normalized)


def inputs(rows: int) -> torch.Tensor:
    x = torch.randn(1, rows, HIDDEN, generator=torch.Generator().manual_seed(rows))
    x[..., 0] = 1
    return x


def first(result: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("compute", BOUNDS)
@pytest.mark.parametrize(("top_k", "lopsided"), [(1, True), (2, False), (2, True), (COUNT, True)])
@pytest.mark.parametrize("name", MODULES)
def test_are_those_of_hugging_face(name: str, top_k: int, lopsided: bool, compute: str) -> None:
    module = random_module(name, top_k, lopsided=lopsided)
    experts = Packed(module, compute)
    for rows in (1, 2, 15, 70):
        x = inputs(rows)
        logits = experts.logits(x)
        chosen = logits.topk(top_k).indices.flatten().bincount(minlength=COUNT)
        if lopsided:
            assert chosen[2] == rows and chosen[4] == (rows if top_k == COUNT else 0)
        got, wanted = experts.sums(x, logits), first(module(x))
        assert got.shape == wanted.shape
        assert 0 < (got - wanted).abs().max() <= BOUNDS[compute]


@pytest.mark.parametrize("compute", BOUNDS)
@pytest.mark.parametrize("name", MODULES)
def test_tokens_have_the_same_bits_alone_and_on_two_threads(name: str, compute: str) -> None:
    experts = Packed(random_module(name, 3, lopsided=False), compute)
    x = inputs(70)
    logits = experts.logits(x)  # once: this product is torch's, whose bits go by the rows
    alone = torch.cat([experts.sums(x[:, i:i + 1], logits[:, i:i + 1]) for i in range(70)], dim=1)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert torch.equal(experts.sums(x, logits), alone)


def test_wrong_sizes_are_refused() -> None:
    gate_up, down = torch.randn(COUNT * 2 * INNER, HIDDEN), torch.randn(COUNT * HIDDEN, INNER)
    make = torch.classes.lmfusion.PackedExperts
    with pytest.raises(RuntimeError, match="do not go together"):
        make(gate_up[COUNT:], None, down, None, COUNT, "float32")
    experts = make(gate_up, None, down, None, COUNT, "float32")
    apply = torch.ops.lmfusion.experts
    x, logits = torch.randn(3, HIDDEN), torch.randn(3, COUNT)
    for wrong in ((x[:, 1:], logits), (x, logits[1:]), (x, logits[:, 1:])):
        with pytest.raises(RuntimeError, match=r"x \[.., 72\] and logits \[.., 6\] of as many"):
            apply(*wrong, experts, None, "silu", COUNT, 2, True)
    with pytest.raises(ValueError, match="no activation \"swish\""):
        apply(x, logits, experts, None, "swish", COUNT, 2, True)
    with pytest.raises(RuntimeError, match="experts: 7 of 6 for each token"):
        apply(x, logits, experts, None, "silu", COUNT, 7, True)
    assert apply(x[:0], logits[:0], experts, None, "silu", COUNT, 2, True).shape == (0, HIDDEN)
