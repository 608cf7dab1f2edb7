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


def best_of(scorer: lmfusion.LMFusionScorer) -> list[object]:
    return [*scorer.best([["the cat", "a mat", "you"]], weight=1.0), scorer.explain("the", "cat"),
            scorer.explain("the", "cat").tokens[-1], scorer.stats()]


def test_results_come_back_from_other_processes(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, casing="variants", boundary="word")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(best_of, [scorer])[0]
    here = best_of(scorer)
    assert list(map(repr, found[:3])) == list(map(repr, here[:3]))
    for result in here:
        for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
            assert repr(again) == repr(result)
    explained = scorer.explain("the ", "cat")
    again = pickle.loads(pickle.dumps(explained))
    for name in ("text", "context_bytes", "word_end_log_prob", "word_begin_log_prob", "log_prob",
                 "candidate_log_prob", "score", "tokens_computed"):
        assert getattr(again, name) == getattr(explained, name)
    assert repr(again.forms) == repr(explained.forms) and len(again.forms) > 1
    assert repr(again.subtracted) == repr(explained.subtracted)
    token = type(explained.tokens[0])
    with pytest.raises(RuntimeError, match="another version"):
        token.__setstate__(token.__new__(token), (1, 2))  # type: ignore[attr-defined]
