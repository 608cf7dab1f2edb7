"""Random calls of scorers of every architecture, each score against plain Hugging Face.

    LMFUSION_TEST_SECONDS  how long to go on, beyond the first worlds (default: not)
    LMFUSION_TEST_SCORES   how many scores to compare at least (default: those of the first worlds)
    LMFUSION_TEST_SEED     the first world's seed (default 1); a failure tells the seed of its world

Each world draws the same cases again by its seed. A failing case is made smaller by Hypothesis, and
shown; it is plain data, so `Machine(world, Case(...), folder).run()` is the test to keep.
"""

from __future__ import annotations

import os
import time
import traceback
from pathlib import Path

import hypothesis
import pytest
from differential.cases import Case, cases
from differential.machine import Machine
from differential.worlds import World

WORLDS = 8  # of the short run
EXAMPLES = 12  # of a world; three times as many where time is given


def run_world(world: World, examples: int, folder: Path) -> None:
    @hypothesis.seed(world.seed)
    @hypothesis.settings(max_examples=examples, deadline=None, database=None, print_blob=True,
                         phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(cases(world))
    def every_score_is_right(case: Case) -> None:
        Machine(world, case, folder).run()

    every_score_is_right()


def test_every_score_is_that_of_plain_hugging_face(
        tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    first = int(os.environ.get("LMFUSION_TEST_SEED", "1"))
    seconds = float(os.environ.get("LMFUSION_TEST_SECONDS", "0"))
    least = int(os.environ.get("LMFUSION_TEST_SCORES", "0"))
    failures: list[Exception] = []
    begin, scores, worlds, largest, evictions = time.monotonic(), 0, 0, 0.0, 0
    while worlds < WORLDS or time.monotonic() - begin < seconds or scores < least:
        # Neighbours in the list of architectures are alike; 17 steps on is another kind.
        world = World.of(first + 17 * worlds, tmp_path)
        try:
            run_world(world, EXAMPLES * (3 if seconds or least else 1), tmp_path)
        except Exception as failure:
            traceback.print_exception(failure)
            failures.append(failure)
            world.scores = 0  # of the search for a smaller case, mostly
        world.bundle.unlink()
        worlds += 1
        scores += world.scores
        evictions += world.evictions
        largest = max(largest, world.largest)
        print(f"{worlds} worlds, {len(failures)} failures, {scores:,} scores, "
              f"largest difference {largest:.1e} nats a token; "
              f"the last was LMFUSION_TEST_SEED={world.seed} ({world.architecture})", flush=True)
    record_property("candidate scores", scores)
    record_property("worlds", worlds)
    record_property("largest difference, nats a token", largest)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {worlds} worlds", failures)
    assert evictions > 0 and scores > 500 * worlds
