"""On one kind of CPU a token's score has the same bits whatever else is computed beside it, in
whatever order, in how many pieces, on how many threads, and from what cache.
"""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable
from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch
from lmfusion.exporter import export

Paths = list[list[int]]
Scores = list[list[float]]
ARCHITECTURES = list(tiny_models.TREE_CONFIGS)
COMPUTES = ["float32", "bfloat16", "int8", "int4"]


def random_paths(seed: int, count: int = 40, longest: int = 38) -> Paths:
    """Token paths, most of which begin as another one does."""
    generator = random.Random(seed)
    paths: Paths = []
    for _ in range(count):
        trunk = generator.choice(paths) if paths and generator.random() < 0.8 else [1]
        kept = trunk[:generator.randint(1, len(trunk))]
        more = generator.randint(1, max(1, min(12, longest - len(kept))))
        paths.append((kept + [generator.randrange(3, 250) for _ in range(more)])[:longest])
    return paths


def score(scorer: lmfusion.LMFusionScorer, paths: Paths) -> Scores:
    return scorer.score_token_paths(paths, [1] * len(paths))


def one_by_one(scorer: lmfusion.LMFusionScorer, paths: Paths) -> Scores:
    return [score(scorer, [path])[0] for path in paths]


def backwards_from_nothing(scorer: lmfusion.LMFusionScorer, paths: Paths) -> Scores:
    """Each path a pass of its own."""
    scores = []
    for path in reversed(paths):
        scorer.clear_cache()
        scores.append(score(scorer, [path])[0])
    return scores[::-1]


def prefixes_before(scorer: lmfusion.LMFusionScorer, paths: Paths) -> Scores:
    """Ancestors come from the cache."""
    for path in paths:
        score(scorer, [path[:len(path) // 2 + 1]])
    return score(scorer, paths)


def in_threads(scorer: lmfusion.LMFusionScorer, paths: Paths) -> Scores:
    scores: Scores = [[] for _ in paths]

    def run(mine: range) -> None:
        for i in mine:
            scores[i] = score(scorer, [paths[i]])[0]

    threads = [threading.Thread(target=run, args=(range(i, len(paths), 4),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return scores


def on_two_threads(scorer: lmfusion.LMFusionScorer, paths: Paths) -> Scores:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        return score(scorer, paths)
    finally:
        torch.set_num_threads(before)


WAYS: list[Callable[[lmfusion.LMFusionScorer, Paths], Scores]] = [
    one_by_one, backwards_from_nothing, prefixes_before, in_threads, on_two_threads]


@functools.cache
def exported(name: str, folder: Path) -> Path:
    return export(tiny_models.build(tiny_models.TREE_CONFIGS[name]()), None, folder / f"{name}.lmf")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("same_bits")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_have_the_same_bits(name: str, folder: Path, tmp_path: Path) -> None:
    bundle = exported(name, folder)
    paths = random_paths(len(name))
    for compute in COMPUTES:
        load = functools.partial(lmfusion.LMFusionScorer, bundle, compute=compute)
        first = load()
        wanted = score(first, paths)
        for way in WAYS:
            assert way(load(), paths) == wanted, (way.__name__, compute)
        for tokens in (1, 5, 23):
            assert score(load(max_batch_tokens=tokens), paths) == wanted, (tokens, compute)
        evicting = load(kv_cache_bytes=first.stats().cache_bytes * 2 // 3)
        assert one_by_one(evicting, paths) == wanted, compute
        assert evicting.stats().evictions > 0
        first.save_cache(tmp_path / "cache")
        loaded = load()
        loaded.load_cache(tmp_path / "cache")
        longer = [[*path, 7, 9, 11][:40] for path in paths]
        assert score(loaded, longer) == score(load(), longer), compute
        (tmp_path / "cache").unlink()
