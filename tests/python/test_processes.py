"""Scorers that go to other processes, are copied and closed."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import lmfusion
import pytest

TEXTS = ["the cat", "a mat"]


def scored(scorer: lmfusion.LMFusionScorer) -> list[float]:
    return scorer.score_texts(TEXTS)


@pytest.mark.parametrize("make", [lambda scorer: pickle.loads(pickle.dumps(scorer)), copy.deepcopy,
                                  copy.copy])
def test_a_copy_is_the_same_file_with_the_same_options(
        bundle: Path, monkeypatch: pytest.MonkeyPatch,
        make: Callable[[lmfusion.LMFusionScorer], lmfusion.LMFusionScorer]) -> None:
    monkeypatch.chdir(bundle.parent)
    scorer = lmfusion.LMFusionScorer(bundle.name, weight=0.5, casing=str.upper, mode="grouped",
                                     kv_cache_bytes=1 << 20)
    scorer.word_insertion_bonus = 2.0
    assert scored(scorer) != scored(lmfusion.LMFusionScorer(bundle))
    other = make(scorer)
    assert other is not scorer and other.options == scorer.options
    assert other.stats().calls == 0 and other.stats().cached_tokens == 0
    assert other.score_continuations(["the"], [["cat"]]) == scorer.score_continuations(
        ["the"], [["cat"]])
    os.chdir("/")  # where another process may be
    assert scored(pickle.loads(pickle.dumps(other))) == scored(scorer)


def test_a_pool_of_processes(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(scored, (scorer,)) == pytest.approx(scored(scorer), abs=1e-5)


def test_a_function_that_cannot_be_sent_is_named(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, casing=lambda text: text)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(scorer)


def test_a_closed_scorer_says_so(bundle: Path) -> None:
    with lmfusion.LMFusionScorer(bundle) as scorer:
        states = lmfusion.StateScorer(scorer)
        assert scored(scorer)[0] < 0
    calls: list[Callable[[], object]] = [
        lambda: scored(scorer), scorer.stats, scorer.clear_cache, lambda: scorer.weight,
        lambda: setattr(scorer, "weight", 1.0), lambda: scorer.description,
        lambda: states.score(states.start(), "a"), lambda: pickle.dumps(scorer)]
    for call in calls:
        with pytest.raises(lmfusion.Error, match="closed"):
            call()
    assert "closed" in repr(scorer)
    scorer.close()  # twice does no harm
    with pytest.raises(KeyError), lmfusion.LMFusionScorer(bundle) as scorer:
        raise KeyError("my own")
    assert "closed" in repr(scorer)
