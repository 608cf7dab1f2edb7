"""How much memory a model and its cache take, computed from the model's description alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmfusion import _core

# Bytes of a number, by the names of the option `kv_dtype`.
NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}
COMPUTE_TYPES = ("float32", "bfloat16", "int8", "int4")
# Bytes of a weight by its type: 32 share a float16 scale, and a minimum where they have 4 bits
# (src/kernels/linear/panel_format.h, narrow_blocks.h). int8 has a float32 scale an output more.
WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "int4": 20 / 32,
                "q4_0": 20 / 32, "q4_1": 20 / 32, "q8_0": 34 / 32}


@dataclass(frozen=True)
class MemoryPlan:
    """What one choice of types takes; all sizes in bytes."""

    device: str  # "cpu" or "cuda"
    compute: str
    kv_dtype: str
    contexts: int
    tokens: int  # of every context
    kv_bytes_per_token: int  # keys and values of all layers
    slot_bytes: int  # the same and the final hidden state
    cache_bytes: int  # contexts * tokens slots: nothing shared
    weight_bytes: int | None  # None where the number of parameters is not known

    @property
    def total_bytes(self) -> int | None:
        """Weights and cache; None where the weights are not known."""
        return None if self.weight_bytes is None else self.weight_bytes + self.cache_bytes


def memory_plan(description: Mapping[str, Any] | str | os.PathLike[str], *,
                contexts: int = 50, tokens: int = 100,
                compute: str = "float32", kv_dtype: str = "auto", device: str = "cuda",
                parameters: int | None = None) -> MemoryPlan:
    """The memory that contexts of a length take, if they share nothing (the worst case).

    Args:
        description: the fields of `lmfusion.json` (docs/export.md): layers, kv_heads, head_dim,
            hidden_size, vocabulary_size; for weights on the CPU, and for exact ones on a device,
            also weight_counts, weight_types, tied_embeddings. Or a model file.
        contexts: texts that are kept.
        tokens: tokens of each, candidates included.
        compute: type of the weights, as the scorer's option.
        kv_dtype: type of keys and values, as the scorer's option.
        device: "cpu", where blocks and bfloat16 of the model file are held as they are stored, or
            "cuda" (and "emulated"), where they get the type that `compute` names.
        parameters: number of weights, tied ones counted once, of a model with tied embeddings, for
            a description without weight_counts; None leaves the weights out.

    Raises:
        ValueError: an unknown type or device, a type that the device does not have, a number below
            1, or a plain model, which has no cache.
    """
    for name, count in (("contexts", contexts), ("tokens", tokens)):
        if count < 1:
            raise ValueError(f"{name} = {count}; at least 1 expected")
    for name, value, known in (("compute", compute, {*COMPUTE_TYPES, "float16"}),
                               ("kv_dtype", kv_dtype,
                                {"auto", "float32", "bfloat16", "float16", "float8"})):
        if value not in known:
            raise ValueError(f"{name} = {value!r}; one of {', '.join(sorted(known))} expected")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device = {device!r}; cpu or cuda expected")
    on_cpu = device == "cpu"
    if on_cpu and (compute == "float16" or kv_dtype not in ("auto", "float32")):
        raise ValueError(f"compute = {compute!r}, kv_dtype = {kv_dtype!r}: the CPU has no float16, "
                         "and keeps keys and values in float32")
    if isinstance(description, (str, os.PathLike)):
        description = read_model(description)[0]
    if description.get("kind") == "plain":
        raise ValueError("a plain model keeps no cache; export it with tree attention")
    activation = compute if compute in ("float32", "float16") else "bfloat16"
    if on_cpu:
        activation = "float32"
    kv_dtype = activation if kv_dtype == "auto" else kv_dtype
    layers, heads, head_dim = (description[name] for name in ("layers", "kv_heads", "head_dim"))
    kv_bytes = _core.kv_bytes(layers, heads, head_dim, NUMBER_BYTES[kv_dtype])
    slot_bytes = _core.slot_bytes(layers, heads, head_dim, description["hidden_size"],
                                  NUMBER_BYTES[kv_dtype], NUMBER_BYTES[activation])
    weights: int | None
    if "weight_counts" in description:
        weights = (_packed_bytes if on_cpu else _device_bytes)(description, compute)
    else:
        weights = (None if on_cpu or parameters is None
                   else _bytes_of_parameters(description, compute, parameters))
    return MemoryPlan(
        device=device, compute=compute, kv_dtype=kv_dtype, contexts=contexts, tokens=tokens,
        kv_bytes_per_token=kv_bytes, slot_bytes=slot_bytes,
        cache_bytes=contexts * tokens * slot_bytes,
        weight_bytes=weights)


def memory_table(description: Mapping[str, Any], *, contexts: int = 50, tokens: int = 100,
                 parameters: int | None = None) -> str:
    """The plan on either device in every type, as a Markdown table (MB = 10^6 bytes).

    The CPU is left out where the description does not say how its weights are stored.
    """
    lines = ["| device | compute | keys and values | KV bytes a token | cache, MB | weights, MB "
             "| total, MB |", "|---|---|---|---|---|---|---|"]
    choices = [("cpu", compute, "auto") for compute in COMPUTE_TYPES
               if "weight_counts" in description]
    choices += [("cuda", compute, kv_dtype) for compute in COMPUTE_TYPES
                for kv_dtype in ("auto", "float8") if (compute, kv_dtype) != ("float32", "float8")]
    for device, compute, kv_dtype in choices:
        plan = memory_plan(description, contexts=contexts, tokens=tokens, compute=compute,
                           kv_dtype=kv_dtype, device=device, parameters=parameters)
        lines.append(f"| {device} | {compute} | {plan.kv_dtype} | {plan.kv_bytes_per_token:,} "
                     f"| {_megabytes(plan.cache_bytes)} | {_megabytes(plan.weight_bytes)} "
                     f"| {_megabytes(plan.total_bytes)} |")
    return "\n".join(lines)


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], int]:
    """The description of a model file and its number of weights, without loading it.

    Raises:
        ModelFileError: not a model file of `python -m lmfusion export`, or not right.
    """
    description = json.loads(_core.read_description(os.fspath(path)))
    return description, sum(description["weight_counts"].values())


def _packed_bytes(description: Mapping[str, Any], compute: str) -> int:
    """Of the matrices packed for the CPU: in the stored type where that serves, else `compute`'s.

    Embeddings keep their bits; where the output matrix that they are tied to does not, they are
    held beside it.
    """
    counts = dict(description["weight_counts"])
    vectors = counts.pop("vectors", 0)
    table = description["vocabulary_size"] * description["hidden_size"]
    table_type = _table_type(description)
    size = 4.0 * vectors
    if not _keeps(table_type, compute):
        size += table * WEIGHT_BYTES[table_type]
        if not description["tied_embeddings"]:
            counts[table_type] -= table  # it is not held in `compute` at all
    for name, count in counts.items():
        held = name if _keeps(name, compute) else _becomes(name, compute)
        size += count * _weight_bytes(held, description)
    return int(size)


def _weight_bytes(type_name: str, description: Mapping[str, Any]) -> float:
    """Of a weight; an output's scale is shared by its inputs, mostly hidden_size many."""
    scale = 4 / description["hidden_size"] if type_name == "int8" else 0.0
    return WEIGHT_BYTES[type_name] + scale


def _becomes(stored: str, compute: str) -> str:
    """The type of a matrix that is not held as it is stored: 8 bits keep 8 bits."""
    return "int8" if (stored, compute) == ("q8_0", "int4") else compute


def _keeps(stored: str, compute: str) -> bool:
    """Whether the CPU holds a matrix as it is stored."""
    if compute == "int4":
        return stored in ("q4_0", "q4_1")
    return compute == "float32" or (compute == "bfloat16" and stored == "bfloat16")


def _table_type(description: Mapping[str, Any]) -> str:
    """The stored type of the output matrix, which is a large part of its type."""
    counts = description["weight_counts"]
    table = description["vocabulary_size"] * description["hidden_size"]
    return description["weight_types"].get("output_weight") or next(
        (name for name in ("bfloat16", "float32") if counts.get(name, 0) >= table), "float32")


def _device_bytes(description: Mapping[str, Any], compute: str) -> int:
    """Of what a device holds; embeddings and outputs are at least 16 bits wide there."""
    counts = dict(description["weight_counts"])
    size = 4.0 * counts.pop("vectors", 0)
    table = description["vocabulary_size"] * description["hidden_size"]
    integers = compute in ("int8", "int4")
    table_size = WEIGHT_BYTES["bfloat16" if integers else compute]
    types = [_table_type(description)]
    if not description["tied_embeddings"]:
        embeddings = [kind for name, kind in description["weight_types"].items()
                      if "embed" in name or "wte" in name]
        types.append(embeddings[0] if embeddings else types[0])
    for name in types:
        counts[name] -= table
        size += table * table_size
    for name, count in counts.items():
        size += count * _weight_bytes(_becomes(name, compute), description)
    return int(size)


def _bytes_of_parameters(description: Mapping[str, Any], compute: str, parameters: int) -> int:
    """The same of a model that is only known by its shape: vectors count as matrices."""
    table = description["vocabulary_size"] * description["hidden_size"]
    integers = compute in ("int8", "int4")
    return int(table * WEIGHT_BYTES["bfloat16" if integers else compute]
               + max(parameters - table, 0) * _weight_bytes(compute, description))


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.1f}" if size < 1e8 else f"{size / 1e6:,.0f}"
