"""The fuzz targets, one after another: libFuzzer's programs of tests/fuzz."""

from __future__ import annotations

import re
from pathlib import Path

from nightly.builds import build
from nightly.outcome import ROOT, Work

SEEDS = ROOT / "tests" / "fuzz" / "seeds"


def fuzz(work: Work) -> None:
    """An equal time for each; inputs that end a program are findings, and stay in its folder."""
    if not work.has("clang++"):
        return
    folder = build(work, "build-fuzz", "-DCMAKE_CXX_COMPILER=clang++", "-DLMFUSION_TORCH=OFF",
                   "-DLMFUSION_FUZZ=ON")
    if folder is None:
        return
    programs = sorted((folder / "tests" / "fuzz").glob("*_fuzzer"))
    for program in programs:
        work.status = program.name
        fuzz_one(work, program, work.seconds / len(programs))


def fuzz_one(work: Work, program: Path, seconds: float) -> None:
    name = program.name.removesuffix("_fuzzer")
    corpus, found = work.folder / "corpus" / name, work.folder / "found" / name
    for each in (corpus, found):
        each.mkdir(parents=True, exist_ok=True)
    before = {path.name for path in found.iterdir()}
    seeds = [SEEDS / name] if (SEEDS / name).is_dir() else []
    begin = work.log.stat().st_size
    work.must(program, f"-max_total_time={max(1, round(seconds))}", "-print_final_stats=1",
              f"-seed={work.seed}", "-rss_limit_mb=2048", "-timeout=20", "-verbosity=0",
              f"-artifact_prefix={found}/", corpus, *seeds, limit=3 * seconds + 120)
    log = work.log.read_bytes()[begin:].decode(errors="replace")
    for count in re.findall(r"stat::number_of_executed_units: (\d+)", log):
        work.outcome.count("fuzz inputs", int(count))
    work.outcome.count("fuzz targets", 1)
    for path in sorted({path.name for path in found.iterdir()} - before):
        work.outcome.findings.append(f"{program.name} ended on {found / path}")
