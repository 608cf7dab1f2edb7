"""What a night does. A line of `STAGES` is a stage; each can be run alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nightly.builds import preset
from nightly.fuzzing import fuzz
from nightly.outcome import ROOT, Work

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
PYTHON_TESTS = Path("tests") / "python"


@dataclass(frozen=True)
class Stage:
    """share: of the time that is left when every stage had its `fixed` seconds."""

    name: str
    what: str
    run: Callable[[Work], None]
    share: float = 0.0
    fixed: float = 10.0


def program(name: str) -> Path:
    """A C++ test of the release build."""
    return ROOT / "build" / "tests" / "cpp" / name


def goes_on(work: Work) -> dict[str, str]:
    """What a test reads that goes on for as long as it may."""
    return {"LMFUSION_TEST_SECONDS": str(round(work.seconds))}


def twin(work: Work) -> None:
    work.tests("cache_random_test", [program("cache_random_test")], limit=2 * work.seconds + 600,
               environment=goes_on(work))


def differential(work: Work) -> None:
    work.tests("differential", [*PYTEST, "-s", PYTHON_TESTS / "test_differential.py"],
               limit=3 * work.seconds + 900, environment=goes_on(work))


def faults(work: Work) -> None:
    work.tests("cache_faults", [program("cache_faults_test")], limit=600)
    work.tests("tree", [program("token_tree_test")], limit=600)
    work.tests("snapshots", [program("warm_start_test")], limit=600)


def files(work: Work) -> None:
    work.tests("model_files", [*PYTEST, PYTHON_TESTS / "test_model_files.py"], limit=1800)


def sanitizers(work: Work, name: str) -> None:
    folder = preset(work, name)
    if folder is not None:
        work.status = "ctest"
        if work.must("ctest", "--preset", name, "--output-on-failure", limit=1800):
            work.outcome.count("programs", len(list((folder / "tests" / "cpp").glob("*_test"))))


STAGES = [
    Stage("differential", "random calls of every architecture against plain Hugging Face",
          differential, share=20),
    Stage("twin", "random calls against a model computed by hand, C++ alone", twin, share=5),
    Stage("faults", "allocations, model calls and writes that fail", faults, fixed=30),
    Stage("files", "damaged model files", files, fixed=120),
    Stage("addresses", "address and undefined-behaviour sanitizers over the rooms without torch",
          lambda work: sanitizers(work, "sanitize"), fixed=120),
    Stage("races", "thread sanitizer over the rooms without torch",
          lambda work: sanitizers(work, "thread"), fixed=120),
    Stage("fuzz", "libFuzzer over every format and over text", fuzz, share=10, fixed=90),
]
