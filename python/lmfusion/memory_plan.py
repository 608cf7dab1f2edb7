"""How much memory a model and its cache take, computed from the model's description alone.

The numbers are those of the engine: `slot_bytes` is what it reserves for one token of the cache
(src/model/torchscript_lm.cpp, src/model/device_lm.cpp).
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Bytes of a number, by the names of the options `compute` and `kv_dtype`.
NUMBER_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "float8": 1.0, "int8": 1.0,
                "int4": 0.5}
INT4_GROUP = 32  # columns that share a float32 scale (src/ops/narrow_weights.h)
COMPUTE_TYPES = ("float32", "bfloat16", "int8", "int4")
# Bytes of a weight of the packed matrices on the CPU (src/ops/panel_format.h).
PACKED_BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 34 / 32, "int4": 20 / 32,
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


def memory_plan(description: Mapping[str, Any], *, contexts: int = 50, tokens: int = 100,
                compute: str = "float32", kv_dtype: str = "auto", device: str = "cuda",
                parameters: int | None = None) -> MemoryPlan:
    """The memory that contexts of a length take, if they share nothing (the worst case).

    Args:
        description: the fields of `lmfusion.json` (docs/export.md): layers, kv_heads, head_dim,
            hidden_size, vocabulary_size; for weights on the CPU also weight_counts,
            tied_embeddings.
        contexts: texts that are kept.
        tokens: tokens of each, candidates included.
        compute: type of the weights, as the scorer's option.
        kv_dtype: type of keys and values, as the scorer's option.
        device: "cpu", where blocks and bfloat16 of the model file are held as they are stored, or
            "cuda" (and "emulated"), where they are widened and then narrowed to `compute`.
        parameters: number of weights, tied ones counted once; None leaves the weights out. Not
            looked at on the CPU.

    Raises:
        ValueError: an unknown type or device, a type that the device does not have, a number below
            1, or a plain model, which has no cache.
    """
    for name, count in (("contexts", contexts), ("tokens", tokens)):
        if count < 1:
            raise ValueError(f"{name} = {count}; at least 1 expected")
    for name, value, known in (("compute", compute, set(NUMBER_BYTES) - {"float8"}),
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
    if description.get("kind") == "plain":
        raise ValueError("a plain model keeps no cache; export it with tree attention")
    activation = compute if compute in ("float32", "float16") else "bfloat16"
    if on_cpu:
        activation = "float32"
    kv_dtype = activation if kv_dtype == "auto" else kv_dtype
    kv_bytes = int(2 * description["layers"] * description["kv_heads"] * description["head_dim"]
                   * NUMBER_BYTES[kv_dtype])
    slot_bytes = kv_bytes + int(description["hidden_size"] * NUMBER_BYTES[activation])
    if on_cpu:
        weights = _packed_bytes(description, compute) if "weight_counts" in description else None
    else:
        weights = None if parameters is None else _weight_bytes(description, compute, parameters)
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
        ValueError: not a model file of `python -m lmfusion export`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            [entry] = [entry for entry in archive.infolist()
                       if entry.filename.endswith("/extra/lmfusion.json")]
            description = json.loads(archive.read(entry))
            return description, sum(description["weight_counts"].values())
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        raise ValueError(f"{os.fspath(path)} has no lmfusion.json of this version; export the "
                         "model with `python -m lmfusion export`") from error


def _packed_bytes(description: Mapping[str, Any], compute: str) -> int:
    """Of the matrices packed for the CPU: in the stored type where that serves, else `compute`'s.

    Embeddings keep their bits; where the output matrix that they are tied to does not, they are
    held beside it.
    """
    counts = dict(description["weight_counts"])
    vectors = counts.pop("vectors", 0)
    table = description["vocabulary_size"] * description["hidden_size"]
    # The table is a large part of its type.
    table_type = description["weight_types"].get("output_weight") or next(
        (name for name in ("bfloat16", "float32") if counts.get(name, 0) >= table), "float32")
    size = 4.0 * vectors
    if not _keeps(table_type, compute):
        size += table * PACKED_BYTES[table_type]
        if not description["tied_embeddings"]:
            counts[table_type] -= table  # it is not held in `compute` at all
    for name, count in counts.items():
        size += count * PACKED_BYTES[name if _keeps(name, compute) else compute]
    return int(size)


def _keeps(stored: str, compute: str) -> bool:
    """Whether the CPU holds a matrix as it is stored."""
    if compute in ("int8", "int4"):
        return stored not in ("float32", "bfloat16")
    return compute == "float32" or stored == "bfloat16"


def _weight_bytes(description: Mapping[str, Any], compute: str, parameters: int) -> int:
    """Integers serve the linear layers; the table of embeddings and outputs is 16 bits wide."""
    if compute not in ("int8", "int4"):
        return int(parameters * NUMBER_BYTES[compute])
    table = description["vocabulary_size"] * description["hidden_size"]
    linear = max(parameters - table, 0)
    # int8 has one scale a row, a few thousandths of the whole; int4 one for INT4_GROUP weights.
    scales = 4 * linear / INT4_GROUP if compute == "int4" else 0
    return int(2 * table + linear * NUMBER_BYTES[compute] + scales)


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.1f}" if size < 1e8 else f"{size / 1e6:,.0f}"
