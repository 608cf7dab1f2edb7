"""Lines and branches of the rooms without torch that no C++ test runs, by llvm-cov.

Each has a reason in `tests/coverage_reasons.txt`; one without a reason is a finding, and so is a
reason that nothing needs any more. Lines are known by their code, so they may move.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from nightly.builds import build
from nightly.outcome import ROOT, Work

ROOMS = ["base", "bundle", "cache", "search", "text", "tree"]
REASONS = ROOT / "tests" / "coverage_reasons.txt"
WHOLE_FILE = "*"


@dataclass
class Source:
    """Counts of a source: how often each line and each side of a branch ran."""

    lines: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    branches: dict[tuple[str, ...], int] = field(default_factory=lambda: defaultdict(int))

    def missed_lines(self) -> list[int]:
        return [line for line, count in self.lines.items() if not count]

    def missed_branches(self) -> list[int]:
        """The line of each side that never ran."""
        return [int(branch[0]) for branch, count in self.branches.items() if not count]


def coverage(work: Work) -> None:
    if not (work.has("clang++") and work.has("llvm-cov") and work.has("llvm-profdata")):
        return
    folder = build(work, "build-coverage", "-DCMAKE_CXX_COMPILER=clang++", "-DLMFUSION_TORCH=OFF",
                   "-DCMAKE_BUILD_TYPE=Debug",
                   "-DCMAKE_CXX_FLAGS=-fprofile-instr-generate -fcoverage-mapping")
    if folder is None:
        return
    programs = sorted((folder / "tests" / "cpp").glob("*_test"))
    profiles = work.folder / "profiles"
    profiles.mkdir(exist_ok=True)
    for program in programs:
        work.status = program.name
        work.must(program, limit=900, environment={
            "LLVM_PROFILE_FILE": str(profiles / f"{program.name}-%p.profraw")})
    merged, report = work.folder / "all.profdata", work.folder / "all.lcov"
    objects = [part for program in programs[1:] for part in ("-object", str(program))]
    command = (f"llvm-profdata merge -sparse {profiles}/*.profraw -o {merged} && llvm-cov export "
               f"-format=lcov -instr-profile {merged} {programs[0]} {' '.join(objects)} > {report}")
    if work.must("bash", "-c", command, limit=600):
        judge(work, read(report))


def read(report: Path) -> dict[str, Source]:
    """The sources of the rooms, by their path in the repository."""
    sources: dict[str, Source] = defaultdict(Source)
    source = Source()
    for line in report.read_text().splitlines():
        kind, _, value = line.partition(":")
        if kind == "SF":
            path = os.path.relpath(os.path.normpath(value), ROOT)
            of_a_room = path.startswith(tuple(f"src/{room}/" for room in ROOMS))
            source = sources[path] if of_a_room else Source()
        elif kind == "DA":
            number, count = value.split(",")[:2]
            source.lines[int(number)] += int(count)
        elif kind == "BRDA":
            *branch, count = value.split(",")
            source.branches[tuple(branch)] += 0 if count == "-" else int(count)
    return dict(sources)


def judge(work: Work, sources: dict[str, Source]) -> None:
    reasons, used = read_reasons(), set()
    for path, source in sorted(sources.items()):
        code = (ROOT / path).read_text().splitlines()
        lines, branches = source.missed_lines(), source.missed_branches()
        for name, missed, of in (("lines", lines, source.lines),
                                 ("branches", branches, source.branches)):
            work.outcome.count(f"{name}", len(of))
            work.outcome.count(f"{name} not run", len(missed))
        unexplained = []
        for number in sorted({*lines, *branches}):
            text = code[number - 1].strip()
            known = {(path, text), (path, WHOLE_FILE)} & reasons.keys()
            used |= known
            if not known:
                unexplained.append(f"{path}:{number}: {text}")
        if unexplained:
            work.outcome.findings.append("\n".join(["no test runs, and no reason says why:",
                                                    *unexplained]))
    for path, text in sorted(reasons.keys() - used):
        work.outcome.findings.append(f"{REASONS.name} has a reason that nothing needs: "
                                     f"{path}: {text}")


def read_reasons() -> dict[tuple[str, str], str]:
    """(path, code of a line or `*`) -> reason. A line of the file is PATH | CODE | REASON."""
    reasons = {}
    for line in REASONS.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        path, _, rest = line.partition(" | ")
        code, _, reason = rest.rpartition(" | ")
        if not (path and code and reason):
            raise ValueError(f"{REASONS.name}: no PATH | CODE | REASON: {line}")
        reasons[path.strip(), code.strip()] = reason.strip()
    return reasons
