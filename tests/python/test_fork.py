"""Processes that are forked before, between and beside a scorer's calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal, sys, threading
import lmfusion

signal.alarm(120)  # ends a process that hangs
RIGHT, REFUSED, WRONG = 0, 1, 2
CONTEXTS, WORDS = ["the cat", "a dog"], [["sat", "ran"], ["slept"]]

def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            os._exit(work())
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(WRONG)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def scored(scorer, expected):
    try:
        scores = scorer.score_continuations(CONTEXTS, WORDS)
    except lmfusion.Error as error:
        return REFUSED if "forked" in str(error) else WRONG
    flat = [a - b for x, y in zip(scores, expected) for a, b in zip(x, y)]
    return RIGHT if max(map(abs, flat)) < 1e-4 else WRONG

scorer = lmfusion.LMFusionScorer(sys.argv[1])
expected = lmfusion.LMFusionScorer(sys.argv[1]).score_continuations(CONTEXTS, WORDS)
assert in_child(lambda: scored(scorer, expected)) == RIGHT, "before the first call"
assert scored(scorer, expected) == RIGHT
assert in_child(lambda: scored(scorer, expected)) == RIGHT, "between calls"

stop = False
def score():
    for i in range(10**9):
        if stop:
            return
        scorer.score_continuations([f"the cat {i} times {i % 7}"], [["sat", "ran"]])
threads = [threading.Thread(target=score) for _ in range(2)]
for thread in threads:
    thread.start()
results = [in_child(lambda: scored(scorer, expected)) for _ in range(20)]
stop = True
for thread in threads:
    thread.join()
assert set(results) <= {RIGHT, REFUSED}, results
assert REFUSED in results, results
assert in_child(lambda: scored(scorer, expected)) == RIGHT, "when all calls are done"
"""


def test_a_forked_process_is_right_or_refuses(bundle: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(bundle)], capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
