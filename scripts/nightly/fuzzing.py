"""The fuzz targets, one after another: libFuzzer's programs of tests/fuzz, in C++ and in Python."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from nightly.builds import build
from nightly.outcome import ROOT, Work

FUZZ = ROOT / "tests" / "fuzz"
READERS = ("nbest", "lattice")  # of readers_fuzzer.py
# Two halves, which can run beside each other.
FILES = ("tokenizer_json", "sentencepiece", "truecaser", "model_file", "snapshot")
TEXTS = ("text", "requests", *READERS)


def fuzz(work: Work, names: Sequence[str]) -> None:
    """An equal time for each; inputs that end a program are findings, and stay in its folder."""
    cpp = cpp_targets(work)
    python = python_targets(work) if set(READERS) & set(names) else {}
    targets = {name: command for name, command in (cpp | python).items() if name in names}
    if not targets:
        work.outcome.skipped = "; ".join(work.outcome.notes)
    for name, command in targets.items():
        work.status = name
        fuzz_one(work, name, command, work.seconds / len(targets))


def cpp_targets(work: Work) -> dict[str, list[str | Path]]:
    """By the names of their seeds; none without clang."""
    if shutil.which("clang++") is None:
        work.outcome.notes.append("clang++ is not installed")
        return {}
    folder = build(work, "build-fuzz", "-DCMAKE_CXX_COMPILER=clang++", "-DLMFUSION_TORCH=OFF",
                   "-DLMFUSION_FUZZ=ON", targets=("fuzzers",))
    programs = sorted((folder / "tests" / "fuzz").glob("*_fuzzer")) if folder else []
    return {program.name.removesuffix("_fuzzer"): [program] for program in programs}


def python_targets(work: Work) -> dict[str, list[str | Path]]:
    if importlib.util.find_spec("atheris") is None:
        work.outcome.notes.append("n-best lists and lattices: atheris is not installed")
        return {}
    return {name: [sys.executable, FUZZ / "readers_fuzzer.py", name] for name in READERS}


def fuzz_one(work: Work, name: str, command: list[str | Path], seconds: float) -> None:
    corpus, found = work.folder / "corpus" / name, work.folder / "found" / name
    for each in (corpus, found):
        each.mkdir(parents=True, exist_ok=True)
    before = {path.name for path in found.iterdir()}
    seeds = [FUZZ / "seeds" / name] if (FUZZ / "seeds" / name).is_dir() else []
    begin = work.log.stat().st_size if work.log.exists() else 0
    work.must(*command, f"-max_total_time={max(1, round(seconds))}", "-print_final_stats=1",
              f"-seed={work.seed}", "-rss_limit_mb=2048", "-timeout=20", "-verbosity=0",
              f"-artifact_prefix={found}/", corpus, *seeds, limit=2 * seconds + 60)
    log = work.log.read_bytes()[begin:].decode(errors="replace")
    for count in re.findall(r"stat::number_of_executed_units: (\d+)", log):
        work.outcome.count("fuzz inputs", int(count))
    work.outcome.count("fuzz targets", 1)
    for path in sorted({path.name for path in found.iterdir()} - before):
        work.outcome.findings.append(f"fuzzing {name} ended on {found / path}")
