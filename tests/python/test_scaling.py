"""Calls on a Ray cluster of this machine: nothing is lost when a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import lmfusion
import pytest
from lmfusion.cli import main
from lmfusion.scaling import Cluster, scored_on
from oracle import TOLERANCE, Oracle, requests

TWO = Cluster(actors=2, cpus=1, retries=3)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    # A machine whose memory others fill would have workers killed that the test does not kill.
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"
    import ray
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def calls_of(seeds: range) -> list[list[str]]:
    return [[text for text in requests(seed)[0] if text] for seed in seeds]


def test_a_worker_that_is_killed_loses_nothing(oracle: Oracle, bundle: Path,
                                               tmp_path: Path) -> None:
    calls = calls_of(range(24))
    read = 0

    def reading() -> Iterator[list[str]]:
        nonlocal read
        for texts in calls:
            read += 1
            yield texts

    def score(scorer: lmfusion.LMFusionScorer, texts: Sequence[str]) -> list[float]:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(0.1)  # so that there is something to lose
        return scorer.score_texts(texts)

    found = []
    killed = None
    for i, row in enumerate(scored_on(TWO, reading(), lambda: lmfusion.LMFusionScorer(bundle),
                                      score)):
        found.append(row)
        assert read <= i + 2 + 2 * TWO.in_flight * 2  # no further ahead than the actors need
        if i == 6:
            killed = int(sorted(tmp_path.iterdir())[0].name)
            os.kill(killed, signal.SIGKILL)
    assert len(found) == len(calls)
    for texts, row in zip(calls, found):
        for text, log_prob in zip(texts, row, strict=True):
            assert log_prob == pytest.approx(oracle.text(text),
                                             abs=TOLERANCE * (len(oracle.ids(text)) + 1))
    workers = {int(path.name) for path in tmp_path.iterdir()}
    assert killed in workers and len(workers) == 3  # the two, and the one that took its place
    assert read == len(calls)


def test_errors_of_a_call_are_the_scorers_own(bundle: Path) -> None:
    texts = [["a cat"], ["the " * 400]]
    answers = scored_on(TWO, texts,
                        lambda: lmfusion.LMFusionScorer(bundle, kv_cache_bytes=40_000),
                        lambda scorer, texts: scorer.score_texts(texts))
    assert len(next(answers)) == 1
    with pytest.raises(lmfusion.CacheBudgetError):
        next(answers)
    assert list(scored_on(TWO, [], lambda: lmfusion.LMFusionScorer(bundle),
                          lambda scorer, texts: [])) == []


def test_a_call_that_kills_every_worker_ends(bundle: Path) -> None:
    def dies(scorer: lmfusion.LMFusionScorer, texts: Sequence[str]) -> list[float]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    with pytest.raises(lmfusion.Error, match="lost with every actor"):
        list(scored_on(Cluster(actors=1, retries=1), [["a"]],
                       lambda: lmfusion.LMFusionScorer(bundle), dies))


def test_rescore_writes_what_it_writes_without_a_cluster(bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "nbest.jsonl"
    source.write_text("".join(
        json.dumps({"utt": f"u{i}", "nbest": [[text, -float(j)] for j, text in enumerate(texts)]})
        + "\n" for i, texts in enumerate(calls_of(range(30)))))
    for name, more in (("here", []), ("there", ["--ray", "local", "--actors", "2"])):
        assert main(["rescore", str(source), "-o", str(tmp_path / f"{name}.jsonl"), "--model",
                     str(bundle), "--hypotheses-a-call", "30", *more]) == 0
    for end in ("jsonl", "jsonl.parts.tsv"):
        assert (tmp_path / f"here.{end}").read_bytes() == (tmp_path / f"there.{end}").read_bytes()


@pytest.mark.parametrize("wrong", [{"actors": 0}, {"in_flight": 0}, {"retries": -1},
                                   {"cpus": 0.0}])
def test_numbers_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Cluster(**wrong)
