"""Every system by name: how it is made, in which settings, and which limit it is held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from peers.calls import Call
from peers.model_files import ModelFiles, load_hugging_face


class Running(Protocol):
    """A system with its model loaded."""

    @property
    def tokens_computed(self) -> int: ...  # since it was made, padding included

    @property
    def forwards(self) -> int: ...

    def new_utterance(self) -> None: ...

    def score(self, call: Call) -> list[float]: ...  # [candidates] log p, nats


@dataclass(frozen=True)
class Setting:
    """One way to run a system; the fastest of several is found before anything is measured."""

    name: str
    environment: tuple[tuple[str, str], ...] = ()  # set before the process starts
    options: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class System:
    """A row of the table."""

    name: str
    make: Callable[..., Running]  # (files, threads, **options)
    bytes_per_weight: float  # what a forward pass has to read, at most
    peak: str  # the type whose GEMM peak bounds it
    form: str = ""  # of the model; see ModelFiles.path
    settings: tuple[Setting, ...] = (Setting("default"),)
    question: str = ""  # what it answers, where that is less than every score


def _uncached(files: ModelFiles, threads: int) -> Running:
    from peers.plain_forwards import UncachedBatches
    return UncachedBatches(load_hugging_face(files.source))


def _literal_plan(files: ModelFiles, threads: int) -> Running:
    from peers.plain_forwards import LiteralPlan
    return LiteralPlan(load_hugging_face(files.source))


def _ctranslate2(compute: str) -> Callable[..., Running]:
    def make(files: ModelFiles, threads: int, batch: int = 32) -> Running:
        from peers.ctranslate2_batches import ScoreBatch
        return ScoreBatch(files.path("ctranslate2"), compute=compute, threads=threads, batch=batch)
    return make


def _llama_cpp(form: str) -> Callable[..., Running]:
    def make(files: ModelFiles, threads: int) -> Running:
        from peers.llama_cpp_tree import TreePerCall
        return TreePerCall(files.path(form), threads=threads)
    return make


def _lmfusion(mode: str, compute: str) -> Callable[..., Running]:
    def make(files: ModelFiles, threads: int, casing: str = "none") -> Running:
        from peers.lmfusion_scorer import Scorer
        return Scorer(files.bundle, mode=mode, compute=compute, casing=casing)
    return make


def _lmfusion_best(files: ModelFiles, threads: int, casing: str = "none") -> Running:
    from peers.lmfusion_scorer import BestOnly
    return BestOnly(files.bundle, mode="tree", compute="float32", casing=casing)


_SPINS = tuple(Setting(f"GOMP_SPINCOUNT={count or 'default'}",
                       (("GOMP_SPINCOUNT", count),) if count else ())
               for count in ("", "10000", "1000000"))
_BATCHES = tuple(Setting(f"batch {batch}, {'MKL' if mkl else 'oneDNN'}",
                         (("CT2_USE_MKL", str(mkl)),), (("batch", batch),))
                 for batch in (16, 64) for mkl in (0, 1))

SYSTEMS = {system.name: system for system in (
    System("hf-uncached", _uncached, 4, "float32"),
    System("hf-literal-plan", _literal_plan, 4, "float32"),
    System("ctranslate2-float32", _ctranslate2("float32"), 4, "float32", "ctranslate2", _BATCHES),
    System("ctranslate2-int8", _ctranslate2("int8"), 1, "int8", "ctranslate2", _BATCHES),
    # Quantized blocks: 32 weights and a scale (Q8_0), or a scale and a minimum (Q4_1).
    System("llama.cpp-f32", _llama_cpp("f32.gguf"), 4, "float32", "f32.gguf", _SPINS),
    System("llama.cpp-q8_0", _llama_cpp("q8_0.gguf"), 34 / 32, "int8", "q8_0.gguf", _SPINS),
    System("llama.cpp-q4_1", _llama_cpp("q4_1.gguf"), 20 / 32, "int8", "q4_1.gguf", _SPINS),
    System("lmfusion-uncached-float32", _lmfusion("uncached", "float32"), 4, "float32"),
    System("lmfusion-grouped-float32", _lmfusion("grouped", "float32"), 4, "float32"),
    System("lmfusion-tree-float32", _lmfusion("tree", "float32"), 4, "float32"),
    System("lmfusion-best-float32", _lmfusion_best, 4, "float32", question="which text"),
    System("lmfusion-tree-bfloat16", _lmfusion("tree", "bfloat16"), 2, "bfloat16"),
    System("lmfusion-tree-int8", _lmfusion("tree", "int8"), 1, "int8"),
    System("lmfusion-tree-int4", _lmfusion("tree", "int4"), 0.5, "int8"),
)}
REFERENCE = "hf-uncached"
