"""Models of the size that people use: export, load time, memory, and tokens a second.

    python bench/large_models.py --shape llama-3.2-1b -o out/llama
    python bench/large_models.py --shape gemma-3-270m -o out/gemma --steps load speed

The weights are random and bfloat16 on disk; speed and memory do not depend on what they are. Every
step is a process of its own, whose peak is what the kernel counts (VmHWM); bench/README.md has the
method. What is made stays in the cache folder, so that steps can be run one by one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.report_file import write_json
from peers.resident import forget_peak, release_free_memory, resident_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = (1, 24, 128)
CONTEXT = 32  # tokens before the words
TYPES = ("float32", "bfloat16", "int8", "int4")
GGUF_TYPES = ("Q8_0", "Q4_1")
STEPS = ("model", "export", "load", "speed", "gguf", "llama.cpp")
SHAPES = ("llama-3.2-1b", "gemma-3-270m", "granite-3.1-1b-a400m")
MIB = 1 << 20


def shape(name: str) -> Any:
    """The transformers configuration of a published model's shape, with plain rotary angles."""
    from transformers import Gemma3TextConfig, GraniteMoeConfig, LlamaConfig
    if name == "granite-3.1-1b-a400m":
        return GraniteMoeConfig(
            num_hidden_layers=24, hidden_size=1024, intermediate_size=512, num_attention_heads=16,
            num_key_value_heads=8, num_local_experts=32, num_experts_per_tok=8, vocab_size=49155,
            max_position_embeddings=8192, tie_word_embeddings=True, embedding_multiplier=12.0,
            logits_scaling=6.0, residual_multiplier=0.22, attention_multiplier=0.015625)
    if name == "gemma-3-270m":
        return Gemma3TextConfig(
            num_hidden_layers=18, hidden_size=640, intermediate_size=2048, num_attention_heads=4,
            num_key_value_heads=1, head_dim=256, vocab_size=262144, sliding_window=512,
            max_position_embeddings=32768, tie_word_embeddings=True)
    return LlamaConfig(
        num_hidden_layers=16, hidden_size=2048, intermediate_size=8192, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, vocab_size=128256, tie_word_embeddings=True,
        max_position_embeddings=8192, rope_parameters={"rope_type": "default",
                                                       "rope_theta": 500000.0})


def random_model(name: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(shape(name), dtype=torch.bfloat16)


def make_model(folder: Path, name: str) -> dict[str, object]:
    random_model(name).save_pretrained(folder / "model")
    return {"bytes": sum(path.stat().st_size for path in (folder / "model").iterdir())}


def export_model(folder: Path, name: str) -> dict[str, object]:
    import lmfusion
    before = memory_before()
    begin = time.perf_counter()
    lmfusion.export_folder(folder / "model", folder / "model.lmf", tokenizer=False)
    return {"seconds": time.perf_counter() - begin, "peak_mib": resident_mib("VmHWM") - before,
            "bytes": (folder / "model.lmf").stat().st_size}


def load(folder: Path, compute: str) -> dict[str, object]:
    """Memory of the process, less what it had before the model."""
    import lmfusion
    from lmfusion.memory import memory_plan
    before = memory_before()
    begin = time.perf_counter()
    scorer = lmfusion.LMFusionScorer(folder / "model.lmf", weight=1.0, compute=compute)
    seconds = time.perf_counter() - begin
    release_free_memory()
    plan = memory_plan(folder / "model.lmf", compute=compute, device="cpu")
    return {"seconds": seconds, "peak_mib": resident_mib("VmHWM") - before,
            "steady_mib": resident_mib("VmRSS") - before,
            "weights_mib": scorer.stats().weight_bytes / MIB,
            "planned_mib": plan.weight_bytes / MIB}


def speed(folder: Path, compute: str, seconds: float) -> dict[str, object]:
    import lmfusion
    scorer = lmfusion.LMFusionScorer(folder / "model.lmf", weight=1.0, compute=compute)

    def text(rows: int) -> None:
        scorer.clear_cache()
        scorer.score_token_paths([list(range(10, 11 + rows))], [rows])

    def words(rows: int) -> Callable[[], float]:
        context = list(range(10, 10 + CONTEXT))
        scorer.clear_cache()
        scorer.score_token_paths([[*context, 5]], [CONTEXT])
        new = itertools.count(1000)  # tokens that no call had before

        def timed() -> float:
            paths = [[*context, first, 7] for first in itertools.islice(new, rows)]
            return measured(lambda: scorer.score_token_paths(paths, [CONTEXT] * rows))
        return timed

    return {"text": {rows: rate(rows, lambda rows=rows: measured(lambda: text(rows)), seconds)
                     for rows in ROWS},
            "words": {rows: rate(rows, words(rows), seconds) for rows in ROWS}}


def measured(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def rate(rows: int, timed: Callable[[], float], seconds: float) -> float:
    """Tokens a second: of the median call of those that fit, the first left out; three at least."""
    timed()
    times = []
    while len(times) < 3 or sum(times) < seconds:
        times.append(timed())
    return rows / sorted(times)[len(times) // 2]


def write_gguf_files(folder: Path) -> dict[str, object]:
    """All types from the same bfloat16 weights; of Llama's shape only."""
    from peers.gguf_file import write_gguf
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="bfloat16")
    return {kind: write_gguf(model, folder / f"{kind}.gguf", kind).stat().st_size
            for kind in GGUF_TYPES}


def llama_cpp(folder: Path, kind: str, threads: int, seconds: float) -> dict[str, object]:
    """The same rows through llama_decode, as peers/llama_cpp_tree.py sets it up."""
    import llama_cpp
    from peers.llama_cpp_tree import TreePerCall
    before = memory_before()
    begin = time.perf_counter()
    model = TreePerCall(folder / f"{kind}.gguf", threads=threads, max_tokens=512)
    loaded = time.perf_counter() - begin
    context, batch = model._context, model._batch
    cache = llama_cpp.llama_get_memory(context)

    def decode(tokens: Sequence[int], depths: Sequence[int], last: Sequence[list[int]],
               wanted: Sequence[bool]) -> float:
        def call() -> None:
            batch.write(tokens, depths, last, wanted)
            if llama_cpp.llama_decode(context, batch.struct) != 0:
                raise RuntimeError("llama_decode failed")
            llama_cpp.llama_get_logits(context)
        return measured(call)

    def text(rows: int) -> float:
        llama_cpp.llama_memory_clear(cache, False)
        return decode(range(10, 10 + rows), range(rows), [[0, 0]] * rows,
                      [row == rows - 1 for row in range(rows)])

    def words(rows: int) -> float:
        llama_cpp.llama_memory_clear(cache, False)
        decode(range(10, 10 + CONTEXT), range(CONTEXT), [[0, rows - 1]] * CONTEXT,
               [row == CONTEXT - 1 for row in range(CONTEXT)])
        return decode(range(1000, 1000 + rows), [CONTEXT] * rows,
                      [[row, row] for row in range(rows)], [True] * rows)

    report: dict[str, object] = {
        "text": {rows: rate(rows, lambda rows=rows: text(rows), seconds) for rows in ROWS},
        "words": {rows: rate(rows, lambda rows=rows: words(rows), seconds) for rows in ROWS}}
    return {"seconds": loaded, "steady_mib": resident_mib("VmRSS") - before, **report}


def resident_mib(field: str) -> float:
    return resident_bytes(field) / MIB


def memory_before() -> float:
    """MiB now; a peak is one after this."""
    forget_peak()
    return resident_mib("VmRSS")


def in_a_process(step: str, folder: Path, threads: int,
                 arguments: Sequence[str]) -> dict[str, object]:
    done = subprocess.run([sys.executable, __file__, "--step", step, "--folder", folder,
                           *arguments], stdout=subprocess.PIPE, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    if done.returncode != 0:
        return {"error": f"exit status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def run_step(given: argparse.Namespace) -> dict[str, object]:
    folder = given.folder
    steps: dict[str, Callable[[], dict[str, object]]] = {
        "model": lambda: make_model(folder, given.shape),
        "export": lambda: export_model(folder, given.shape),
        "load": lambda: load(folder, given.type),
        "speed": lambda: speed(folder, given.type, given.seconds),
        "gguf": lambda: write_gguf_files(folder),
        "llama.cpp": lambda: llama_cpp(folder, given.type, given.threads, given.seconds)}
    return steps[given.step]()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES,
                        default="llama-3.2-1b")
    parser.add_argument("-o", "--output", type=Path, help="path of the report, without .json")
    parser.add_argument("--folder", type=Path, help="default: the cache folder")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS[:4])
    parser.add_argument("--types", nargs="+", help="default: all of lmfusion, all of llama.cpp")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=2, help="of measuring, each number")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--type", default="float32", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.step:
        print(json.dumps(run_step(given)))
        return 0
    if given.folder is None:
        from lmfusion.default_model import cache_folder
        given.folder = cache_folder() / "bench" / given.shape
    given.folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, object] = {"shape": given.shape, "threads": given.threads}
    common = ["--shape", given.shape, "--threads", str(given.threads),
              "--seconds", str(given.seconds)]
    for step in given.steps:
        types = {"load": TYPES, "speed": TYPES, "llama.cpp": GGUF_TYPES}.get(step, ("",))
        for kind in given.types or types if types != ("",) else types:
            name = f"{step} {kind}".strip()
            report[name] = in_a_process(step, given.folder, given.threads,
                                        [*common, *(["--type", kind] if kind else [])])
            print(name, json.dumps(report[name]), flush=True)
    if given.output:
        write_json(report, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
