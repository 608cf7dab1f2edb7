"""On one kind of CPU a token's score has the same bits whatever else is computed beside it, in
whatever order, in how many pieces, on how many threads, and from what cache.

A table: every architecture and type of weights x compute type x way. What is wanted is a path's
score in a call of its own, from an empty cache, on one thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch
from lmfusion.exporter import export, export_folder
from test_gguf import Type, Written, model_of

Paths = list[list[int]]
Scores = list[list[float]]
COMPUTES = ["float32", "bfloat16", "int8", "int4"]
STRANGERS = 7  # a seed of paths that are nobody's business


def from_blocks(kind: Type, folder: Path) -> Path:
    """Of a GGUF file whose matrices are blocks of one kind."""
    source = Written(folder / f"{kind.name}.gguf", "llama", model_of("llama", 280, 256))
    return export_folder(source.close(kind), folder / f"{kind.name}.lmf", tokenizer=False)


def wide(folder: Path, *, bfloat16: bool) -> Path:
    """More inputs than one sum takes, more outputs than a tile."""
    config = tiny_models.TREE_CONFIGS["llama"]()
    config.update({"hidden_size": 160, "intermediate_size": 416, "num_hidden_layers": 2,
                   "vocab_size": 1100, "head_dim": 64, "max_position_embeddings": 1024})
    model = tiny_models.build(config)
    if bfloat16:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.bfloat16())
    return export(model, None, folder / f"wide-{bfloat16}.lmf")


def tiny(name: str, folder: Path) -> Path:
    return export(tiny_models.build(tiny_models.TREE_CONFIGS[name]()), None, folder / f"{name}.lmf")


MODELS: dict[str, Callable[[Path], Path]] = {
    **{name: functools.partial(tiny, name) for name in tiny_models.TREE_CONFIGS},
    "wide": functools.partial(wide, bfloat16=False),
    "bfloat16-wide": functools.partial(wide, bfloat16=True),
    "gguf-q4_1": functools.partial(from_blocks, Type.Q4_1),
    "gguf-q8_0": functools.partial(from_blocks, Type.Q8_0),
}
# What runs on other instruction sets in every run of the tests; the nightly command runs all.
SOME_MODELS = ("gemma2", "gpt-oss", "wide", "gguf-q4_1")


def random_paths(seed: int, count: int = 24, longest: int = 38) -> Paths:
    """Token paths, most of which begin as another one does."""
    generator = random.Random(seed)
    paths: Paths = []
    for _ in range(count):
        trunk = generator.choice(paths) if paths and generator.random() < 0.8 else [1]
        kept = trunk[:generator.randint(1, len(trunk))]
        more = generator.randint(1, max(1, min(12, longest - len(kept))))
        paths.append((kept + [generator.randrange(3, 250) for _ in range(more)])[:longest])
    return paths


def paths_for(name: str) -> Paths:
    """Those of a wide model also go on beyond the keys that are weighed at once (256)."""
    paths = random_paths(len(name))
    if "wide" in name:
        long = [1] + [3 + i % 246 for i in range(290)]
        paths += [long, long[:280] + [5, 7], long[:255]]
    return paths


def score(scorer: lmfusion.LMFusionScorer, paths: Paths) -> Scores:
    return scorer.score_token_paths(paths, [1] * len(paths))


def one_by_one(scorer: lmfusion.LMFusionScorer, paths: Paths) -> Scores:
    return [score(scorer, [path])[0] for path in paths]


class Case:
    """One model in one compute type."""

    def __init__(self, bundle: Path, name: str, compute: str) -> None:
        self.load = functools.partial(lmfusion.LMFusionScorer, bundle, compute=compute)
        self.paths = paths_for(name)
        self.number = list(MODELS).index(name) + COMPUTES.index(compute)
        self.random = random.Random(self.number)
        scorer = self.load()
        self.wanted: Scores = []
        for path in self.paths:
            scorer.clear_cache()
            self.wanted += score(scorer, [path])
        assert scorer.stats().plain_linears == 0
        assert len({tuple(scores) for scores in self.wanted}) > len(self.paths) // 2

    def expect(self, scorer: lmfusion.LMFusionScorer, *what: object) -> None:
        assert score(scorer, self.paths) == self.wanted, what


def in_a_batch(case: Case) -> None:
    """All in one pass; each beside strangers; each beside itself."""
    scorer = case.load()
    case.expect(scorer)
    assert scorer.stats().forwards <= 1 + sum(map(len, case.paths)) // 512
    strangers = random_paths(STRANGERS)
    assert score(case.load(), strangers + case.paths)[len(strangers):] == case.wanted
    for rows in (2, 3, 5, 13, 25):  # as many as different kernels take
        scorer = case.load()
        for begin in range(0, len(case.paths), rows):
            scorer.clear_cache()
            part = slice(begin, begin + rows)
            assert score(scorer, case.paths[part]) == case.wanted[part], (rows, begin)


def in_any_order(case: Case) -> None:
    order = list(range(len(case.paths)))
    for _ in range(2):
        case.random.shuffle(order)
        scores = score(case.load(), [case.paths[i] for i in order])
        assert scores == [case.wanted[i] for i in order]
        scores = one_by_one(case.load(), [case.paths[i] for i in order])
        assert scores == [case.wanted[i] for i in order]


def in_chunks(case: Case) -> None:
    for tokens in (1, 2, 5, 14, 23, 64):
        scorer = case.load(max_batch_tokens=tokens)
        case.expect(scorer, tokens)
        assert scorer.stats().forwards >= scorer.stats().tokens_computed / tokens


def on_threads(case: Case) -> None:
    """On 2 and 16, and on some of those between, others in other cases."""
    with threads_of_torch():
        for count in sorted({2, 16, *range(1 + case.number % 4, 17, 4)}):
            torch.set_num_threads(count)
            case.expect(case.load(), count)


def for_callers_at_once(case: Case) -> None:
    scorer, scores = case.load(), dict[int, list[float]]()

    def run(mine: range) -> None:
        for i in mine:
            scores[i] = score(scorer, [case.paths[i]])[0]

    callers = [threading.Thread(target=run, args=(range(i, len(case.paths), 4),))
               for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [scores[i] for i in range(len(case.paths))] == case.wanted


def from_a_warm_cache(case: Case) -> None:
    """Ancestors that other calls computed, then nothing left to compute."""
    scorer = case.load()
    score(scorer, random_paths(STRANGERS))
    for path in case.paths:
        score(scorer, [path[:len(path) // 2 + 1]])
    case.expect(scorer)
    computed = scorer.stats().tokens_computed
    case.expect(scorer)
    assert scorer.stats().tokens_computed == computed


def after_evictions(case: Case) -> None:
    full = case.load()
    case.expect(full)
    scorer = case.load(kv_cache_bytes=full.stats().cache_bytes * 4 // 5)
    for _ in range(2):
        assert one_by_one(scorer, case.paths) == case.wanted
        case.expect(scorer)
    assert scorer.stats().evictions > 0
    assert scorer.stats().tokens_computed > full.stats().tokens_computed


def from_a_snapshot(case: Case) -> None:
    first, loaded, whole = case.load(), case.load(), case.load()
    score(first, [path[:len(path) // 2 + 1] for path in case.paths])
    with tempfile.TemporaryDirectory() as folder:
        first.save_cache(Path(folder) / "half")
        loaded.load_cache(Path(folder) / "half")
        case.expect(loaded)
        loaded.save_cache(Path(folder) / "all")
        whole.load_cache(Path(folder) / "all")
    computed = loaded.stats().tokens_computed
    assert 0 < computed < first.stats().tokens_computed + computed
    case.expect(whole)
    assert whole.stats().tokens_computed == 0


WAYS = [in_a_batch, in_any_order, in_chunks, on_threads, for_callers_at_once, from_a_warm_cache,
        after_evictions, from_a_snapshot]


@contextlib.contextmanager
def threads_of_torch() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all processes of a run, so that each model is exported once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "same_bits"
    folder.mkdir(exist_ok=True)
    return folder


@functools.cache
def exported(name: str, folder: Path) -> Path:
    made = folder / f"{name}.path"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            made.write_text(str(MODELS[name](folder)))
    return Path(made.read_text())


@functools.cache
def case_of(name: str, compute: str, folder: Path) -> Case:
    return Case(exported(name, folder), name, compute)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("name", MODELS)
def test_same_bits(name: str, compute: str, way: Callable[[Case], None], folder: Path) -> None:
    way(case_of(name, compute, folder))


@pytest.mark.skipif("LMFUSION_CPU" in os.environ, reason="this run is itself of one set")
@pytest.mark.parametrize("instructions", ["avx2", "portable"])
def test_on_other_instruction_sets(instructions: str, folder: Path) -> None:
    """The same table in a process that uses no more than these."""
    wanted = " or ".join(f"test_same_bits[{name}-" for name in SOME_MODELS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         "-W", "ignore", f"--basetemp={folder / instructions}", __file__, "-k", wanted],
        env={**os.environ, "LMFUSION_CPU": instructions, "PYTEST_ADDOPTS": ""},
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    cases = len(SOME_MODELS) * len(COMPUTES) * len(WAYS)
    assert f"{cases} passed" in done.stdout
