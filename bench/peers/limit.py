"""What the machine allows: its bandwidth and matrix speed, and the time that some requests need.

    seconds = sum over forward passes of max(bytes of weights / bandwidth, flops / peak)

with one forward pass per call, in which every distinct token of an utterance is computed once. The
bytes of activations, keys and values and the flops of attention are left out, so nothing can be
faster than this.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from peers.calls import Call

BUFFER_BYTES = 1 << 30  # far more than any cache holds
ROWS, INPUTS, OUTPUTS = 512, 2048, 8192


@dataclass(frozen=True)
class Work:
    """What one forward pass must do, however it is done."""

    tokens: int  # through the layers
    rows: int  # through the output matrix


@dataclass(frozen=True)
class ModelSize:
    """Weights, counted."""

    body: int  # of all linear layers but the last
    head: int  # of the output matrix


def work_of(calls: Sequence[Call]) -> list[Work]:
    """[calls] what is missing at each call when nothing is computed twice in an utterance."""
    work = []
    filled: set[tuple[int, ...]] = set()
    normalized: set[tuple[int, ...]] = set()
    for index, call in enumerate(calls):
        if index == 0 or call.utterance != calls[index - 1].utterance:
            filled, normalized = set(), set()
        before = len(filled), len(normalized)
        for path in set(call.paths):
            if len(path.ids) <= path.scored_begin:
                continue
            filled.update(path.ids[:end] for end in range(1, len(path.ids)))
            normalized.update(path.ids[:end] for end in range(path.scored_begin, len(path.ids)))
        work.append(Work(len(filled) - before[0], len(normalized) - before[1]))
    return work


def seconds_of(work: Sequence[Work], size: ModelSize, *, bytes_per_weight: float,
               bandwidth: float, peak: float) -> float:
    """The least time for all passes; bandwidth in bytes/s, peak in flop/s."""
    total = 0.0
    for step in work:
        read = (size.body if step.tokens else 0) + (size.head if step.rows else 0)
        flops = 2.0 * (size.body * step.tokens + size.head * step.rows)
        total += max(read * bytes_per_weight / bandwidth, flops / peak)
    return total


def measure(threads: int) -> dict[str, object]:
    """Bandwidth (bytes/s) and peaks (flop/s) of `threads` threads, the best of several ways each.

    Where no way works for a type, its peak is missing. "missing" says which ways do not work here.
    """
    torch.set_num_threads(threads)
    ways = {"bandwidth": _reading_ways(), "float32": _float_ways(torch.float32),
            "bfloat16": _float_ways(torch.bfloat16), "int8": _int8_ways()}
    figures: dict[str, object] = {}
    chosen: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name, kernels in ways.items():
        amount = BUFFER_BYTES if name == "bandwidth" else 2.0 * ROWS * INPUTS * OUTPUTS
        speeds = {}
        for kernel, run in kernels.items():
            try:
                speeds[kernel] = amount / _best_seconds(run)
            except (RuntimeError, AttributeError) as error:  # this build of torch lacks it
                missing[f"{name}: {kernel}"] = str(error).splitlines()[0]
        if speeds:
            chosen[name] = max(speeds, key=speeds.__getitem__)
            figures[name] = speeds[chosen[name]]
    return {**figures, "by": chosen, "missing": missing}


def keep(machine: dict[str, object], figures: dict[str, object]) -> None:
    """Adds what measure() found in one more round to all readings.

    Of peaks the best counts. Of bandwidth the median: other machines may share the memory of a
    virtual one, and readings jump (50 to 79 GB/s within a minute).
    """
    machine["missing"] = figures["missing"]
    readings = machine.setdefault("readings", {})
    for name, kernel in figures["by"].items():
        readings.setdefault(name, []).append([figures[name], kernel])
        choose = statistics.median_low if name == "bandwidth" else max
        machine[name], machine["by"][name] = choose(readings[name])


def _best_seconds(run: Callable[[], object], repeats: int = 5) -> float:
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _reading_ways() -> dict[str, Callable[[], object]]:
    vector = torch.ones(4096)
    ways: dict[str, Callable[[], object]] = {}
    for pages, buffer in (("", torch.ones(BUFFER_BYTES // 4)), (", large pages", _large_pages())):
        ways[f"sum{pages}"] = buffer.sum
        ways[f"mv{pages}"] = lambda buffer=buffer: buffer.view(-1, 4096).mv(vector)
        ways[f"max{pages}"] = buffer.max
    return ways


def _large_pages() -> torch.Tensor:
    """The same buffer in pages of 2 MB, where the system gives them to who asks."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.ones(BUFFER_BYTES // 4)
    memory = mmap.mmap(-1, BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32).fill_(1)


def _float_ways(dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    rows, weight = torch.randn(ROWS, INPUTS).to(dtype), torch.randn(OUTPUTS, INPUTS).to(dtype)
    packed: list[torch.Tensor] = []

    def packed_linear() -> torch.Tensor:
        if not packed:
            packed.append(torch.ops.mkldnn._reorder_linear_weight(weight, ROWS))
        return torch.ops.mkldnn._linear_pointwise(rows, packed[0], None, "none", [], "")

    return {"linear": lambda: torch.nn.functional.linear(rows, weight),
            "oneDNN packed": packed_linear}


def _int8_ways() -> dict[str, Callable[[], object]]:
    rows = torch.randint(-127, 127, (ROWS, INPUTS), dtype=torch.int8)
    weight = torch.randint(-127, 127, (INPUTS, OUTPUTS), dtype=torch.int8)
    ways: dict[str, Callable[[], object]] = {"_int_mm": lambda: torch._int_mm(rows, weight)}
    floats = torch.randn(ROWS, INPUTS)
    # Nothing caps FBGEMM: beside systems that are capped at AVX2 it would use AVX-512 VNNI.
    capped = "ATEN_CPU_CAPABILITY" in os.environ
    for engine in torch.backends.quantized.supported_engines:
        if engine == "onednn" or (engine == "fbgemm" and not capped):
            torch.backends.quantized.engine = engine
            quantized = torch.quantize_per_channel(
                torch.randn(OUTPUTS, INPUTS), torch.full((OUTPUTS,), 0.01),
                torch.zeros(OUTPUTS, dtype=torch.long), 0, torch.qint8)
            packed = torch.ops.quantized.linear_prepack(quantized, None)
            ways[f"{engine} linear_dynamic"] = (
                lambda packed=packed: torch.ops.quantized.linear_dynamic(floats, packed, True))
    return ways
