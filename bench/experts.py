"""Mixtures of experts alone: a layer's experts with their routing, against Hugging Face's own.

    OMP_NUM_THREADS=2 python bench/experts.py --shape qwen3 -o out/experts_qwen3

All compute the same module of transformers with the same weights in one process, one after the
other; bench/README.md has the method.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lmfusion  # noqa: F401  the operators
import torch
from lmfusion.exporter.fusion.experts import Experts, read_experts
from peers.report_file import write_json
from transformers import GptOssConfig, MixtralConfig, PretrainedConfig, Qwen3MoeConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

ROWS = (1, 15, 128)
INPUTS = 16  # batches that take turns, so that experts come from memory
TYPES = ("float32", "bfloat16", "int8", "int4")
THEIRS = tuple(itertools.product(("eager", "grouped_mm"), ("float32", "bfloat16")))

Layer = Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, ...]]

# Experts of published models as many as they have, widths a half of theirs (Mixtral: a quarter).
SHAPES: dict[str, tuple[type[torch.nn.Module], PretrainedConfig]] = {
    # Qwen3-30B-A3B
    "qwen3": (Qwen3MoeSparseMoeBlock, Qwen3MoeConfig(
        hidden_size=1024, moe_intermediate_size=384, num_experts=128, num_experts_per_tok=8,
        norm_topk_prob=True)),
    # gpt-oss-20b
    "gpt-oss": (GptOssMLP, GptOssConfig(
        hidden_size=1440, intermediate_size=1440, num_local_experts=32, num_experts_per_tok=4)),
    # Mixtral-8x7B
    "mixtral": (MixtralSparseMoeBlock, MixtralConfig(
        hidden_size=1024, intermediate_size=3584, num_local_experts=8, num_experts_per_tok=2)),
}


def random_layer(shape: str, implementation: str = "eager") -> torch.nn.Module:
    """float32 weights that are bfloat16 numbers, as published ones are."""
    torch.manual_seed(1)
    module, config = SHAPES[shape]
    config._experts_implementation = implementation
    layer = module(config).eval().requires_grad_(False)
    for parameter in layer.parameters():
        scale = min(parameter.shape[-2:]) ** -0.5 if parameter.dim() > 1 else 1.0
        parameter.normal_(std=scale).copy_(parameter.bfloat16())
    return layer


def theirs(shape: str, implementation: str, kind: str) -> Layer:
    return random_layer(shape, implementation).to(getattr(torch, kind))


def ours(part: Experts, kind: str) -> Layer:
    count = part.router_weight.shape[0]
    packed = torch.classes.lmfusion.PackedExperts(
        part.gate_up_weight, part.gate_up_bias, part.down_weight, part.down_bias, count, kind)

    router = torch.classes.lmfusion.PackedMatrix(part.router_weight, part.router_bias, kind)

    def layer(x: torch.Tensor) -> torch.Tensor:
        logits = torch.ops.lmfusion.linear(x, router)
        return torch.ops.lmfusion.experts(x, logits, packed, None, part.activation, count,
                                          part.top_k, part.normalized)
    return layer


def systems(shape: str, types: Sequence[str], *, peers: bool
            ) -> Iterator[tuple[str, Callable[[], Layer]]]:
    part = read_experts(random_layer(shape))
    assert part is not None
    for kind in types:
        yield f"lmfusion {kind}", functools.partial(ours, part, kind)
    for implementation, kind in THEIRS if peers else ():
        yield f"transformers {implementation} {kind}", functools.partial(
            theirs, shape, implementation, kind)


def inputs(shape: str, rows: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    width = SHAPES[shape][1].hidden_size
    return [torch.randn(1, rows, width, generator=generator) for _ in range(INPUTS)]


def milliseconds(layer: Layer, batches: Sequence[torch.Tensor], seconds: float) -> float:
    """The median call of those that fit, the first left out; three at least."""
    layer(batches[-1])
    times: list[float] = []
    for x in itertools.cycle(batches):
        if len(times) >= 3 and sum(times) >= seconds:
            return 1e3 * sorted(times)[len(times) // 2]
        begin = time.perf_counter()
        layer(x)
        times.append(time.perf_counter() - begin)
    raise AssertionError("unreachable")


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="qwen3")
    parser.add_argument("--types", nargs="*", choices=TYPES, default=TYPES)
    parser.add_argument("--no-peers", action="store_true", help="lmfusion alone")
    parser.add_argument("--seconds", type=float, default=1, help="of measuring, each number")
    parser.add_argument("-o", "--output", type=Path, help="path of the report, without .json")
    given = parser.parse_args(arguments)
    report: dict[str, Any] = {"shape": given.shape, "threads": torch.get_num_threads(),
                              "cores": os.cpu_count()}
    for name, make in systems(given.shape, given.types, peers=not given.no_peers):
        layer = make()
        in_bfloat16 = name.startswith("transformers") and name.endswith("bfloat16")
        report[name] = {}
        for rows in ROWS:
            batches = inputs(given.shape, rows)
            if in_bfloat16:
                batches = [x.bfloat16() for x in batches]
            report[name][rows] = milliseconds(layer, batches, given.seconds)
        del layer  # before the next one is made
        print(name, json.dumps(report[name]), flush=True)
    if given.output:
        write_json(report, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
