"""Many calls of several threads on a small cache: exact to the end, and no memory is lost.

    LMFUSION_TEST_SECONDS  how long to go on, beyond the first calls (default: not)
    LMFUSION_TEST_CALLS    how many those are (default 2000); memory is compared from 8000 on
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import lmfusion
import psutil
import pytest
from oracle import Oracle, check, requests

THREADS = 4
CALLS = int(os.environ.get("LMFUSION_TEST_CALLS", "2000"))
WARM_UP = 8000  # calls after which memory is compared, with texts enough to fill the memo of tokens
TOKENS = 90  # of the cache


def small_scorer(bundle: Path) -> lmfusion.LMFusionScorer:
    whole = lmfusion.LMFusionScorer(bundle)
    whole.score_texts(["the cat sat"])
    token_bytes = whole.stats().cache_bytes // whole.stats().cached_tokens
    return lmfusion.LMFusionScorer(bundle, weight=1.0, kv_cache_bytes=TOKENS * token_bytes,
                                   selfcheck_every=100)


def resident() -> int:
    return psutil.Process().memory_info().rss


def test_many_calls_of_threads(oracle: Oracle, bundle: Path,
                               record_property: pytest.RecordProperty) -> None:
    begin = time.monotonic()
    end = begin + float(os.environ.get("LMFUSION_TEST_SECONDS", "0"))
    scorer = small_scorer(bundle)
    states = lmfusion.StateScorer(scorer)
    lock, done, warm = threading.Lock(), [0], [0]
    errors: list[BaseException] = []

    def decode(thread: int) -> None:
        generator = random.Random(thread)
        try:
            while done[0] < CALLS or time.monotonic() < end:
                filling = end > begin and done[0] < WARM_UP
                contexts, words = requests(generator.randrange(10**6), 60 if filling else 6)
                scorer.score_continuations(contexts, words, cache_namespace=f"user {thread}")
                state = states.start()
                for word in ("the", "cat", generator.choice(["sat", "on"])):
                    _, state = states.score(state, word)
                with lock:
                    done[0] += 1
                    if done[0] == WARM_UP:
                        warm[0] = resident()
                    if done[0] % 2000 == 0:
                        print(f"{done[0]:,} calls, {resident() >> 20} MiB", flush=True)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=decode, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    growth = resident() / warm[0] - 1 if warm[0] else 0.0
    record_property("soak calls", done[0])
    record_property("largest growth of memory", max(0.0, growth))
    stats = scorer.stats()
    assert growth < 0.01
    assert stats.evictions > done[0] and stats.selfcheck_failures == 0 < stats.selfchecks
    assert stats.cache_bytes <= stats.cache_bytes_limit
    for seed in range(3):
        contexts, words = requests(seed)
        check(oracle, contexts, words, scorer.score_continuations(contexts, words))
