"""Sixteen threads on one scorer, each of whose calls gives what it gives alone, beside threads that
explain, clear, prime, save, load and look at counters.

    LMFUSION_TEST_THREAD_CALLS  calls of each thread (default 20)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import lmfusion
import pytest
from oracle import Oracle, check, requests

THREADS = 16
CALLS = int(os.environ.get("LMFUSION_TEST_THREAD_CALLS", "20"))
TOLERANCE = 1e-4  # nats a token


def run_threads(call: Callable[[int, int], None]) -> float:
    """call(thread, number) of every thread; seconds that it took."""
    errors: list[BaseException] = []

    def run(thread: int) -> None:
        try:
            for number in range(CALLS):
                call(thread, number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    return time.monotonic() - begin


def request(thread: int, number: int) -> tuple[list[str], list[list[str]]]:
    return requests(1000 * thread + number, contexts=2)


class Beside:
    """What goes on until it is ended, each a thread; an explanation is compared with the oracle."""

    def __init__(self, scorer: lmfusion.LMFusionScorer, oracle: Oracle, folder: Path) -> None:
        saved = folder / "some.cache"
        scorer.save_cache(saved)
        wanted = oracle.word("the cat", "sat")

        def explain() -> None:
            explained = scorer.explain("the cat", "sat")
            tokens = len(explained.tokens)
            assert explained.log_prob == pytest.approx(wanted, abs=TOLERANCE * tokens)

        def clear() -> None:
            scorer.clear_cache("n1")
            time.sleep(0.005)

        def look() -> None:
            stats = scorer.stats()
            assert stats.cache_bytes <= stats.cache_bytes_limit
            time.sleep(0.001)

        self.counts = dict.fromkeys(("explain", "clear", "prime", "files", "look"), 0)
        self.errors: list[BaseException] = []
        self.ended = threading.Event()
        works = {"explain": explain, "clear": clear, "look": look,
                 "prime": lambda: scorer.prime(["the cat"], vocabulary=["sat"]),
                 "files": lambda: (scorer.save_cache(saved), scorer.load_cache(saved))}
        self.threads = [threading.Thread(target=self.run, args=item) for item in works.items()]
        for thread in self.threads:
            thread.start()

    def run(self, name: str, work: Callable[[], object]) -> None:
        try:
            while not self.ended.is_set():
                work()
                self.counts[name] += 1
        except BaseException as error:
            self.errors.append(error)

    def end(self) -> dict[str, int]:
        self.ended.set()
        for thread in self.threads:
            thread.join()
        assert not self.errors, self.errors[0]
        return self.counts


def test_calls_of_threads_are_those_of_one(oracle: Oracle, bundle: Path, tmp_path: Path,
                                           record_property: pytest.RecordProperty) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, weight=1.0)
    serial = lmfusion.LMFusionScorer(bundle, weight=1.0)
    beside = Beside(scorer, oracle, tmp_path)
    got: dict[tuple[int, int], list[list[float]]] = {}

    def call(thread: int, number: int) -> None:
        contexts, words = request(thread, number)
        got[thread, number] = scorer.score_continuations(contexts, words,
                                                         cache_namespace=f"n{number % 3}")

    run_threads(call)
    counts = beside.end()
    for (thread, number), rows in got.items():
        contexts, words = request(thread, number)
        for row, other in zip(rows, serial.score_continuations(contexts, words)):
            assert row == pytest.approx(other, abs=1e-3)
    check(oracle, *request(0, 0), got[0, 0])
    assert all(counts.values()), counts
    record_property("calls of threads", THREADS * CALLS)
    record_property("explanations beside them", counts["explain"])


def test_waiting_calls_share_forward_passes(bundle: Path,
                                            record_property: pytest.RecordProperty) -> None:
    """Against a lock around a scorer of its own, which gives each call its own passes."""
    sharing, locked = (lmfusion.LMFusionScorer(bundle) for _ in range(2))

    def timed(scorer: lmfusion.LMFusionScorer, lock: threading.Lock | nullcontext[None]) -> float:
        def call(thread: int, number: int) -> None:
            with lock:
                # A namespace of its own, so that every call has work to do.
                scorer.score_continuations(*request(thread, number),
                                           cache_namespace=f"{thread} {number}")
        return run_threads(call)

    shared_seconds, locked_seconds = timed(sharing, nullcontext()), timed(locked, threading.Lock())
    shared, alone = sharing.stats(), locked.stats()
    assert shared.calls == alone.calls == THREADS * CALLS
    assert shared.forwards < 0.8 * alone.forwards
    record_property("largest throughput over a lock, Python", locked_seconds / shared_seconds)
    record_property("largest calls a forward, Python", shared.calls / shared.forwards)
