"""Lines and branches of the rooms without torch that no C++ test runs, by llvm-cov.

Each has a reason in `tests/coverage_reasons.txt`; one without a reason is a finding, and so is a
reason that nothing needs any more, unless it begins with "Chance decides". Lines are known by their
code, so they may move.

What counts: every line of `src` and `include` that clang compiles into a test without torch, those
of the preprocessor (`#if` within a function) not among them, and both sides of every condition in
it. A place of the source is one, however often it is compiled: counts of templates, of the
instruction sets and of the programs are added up. A condition whose value the compiler knows has no
sides; what it adds itself has no place: exceptions, copies, and the way past every case of a
`switch` (-Wswitch sees to it that an enum has all of them).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightly.builds import build
from nightly.outcome import ROOT, Work
from nightly.reasons import read_reasons

REASONS = ROOT / "tests" / "coverage_reasons.txt"
BLOCK = " ..."  # at the end of a reason's code: the line and the block that it begins
CHANCE = "Chance decides"  # begins a reason that some runs do not need
SKIPPED = 2  # llvm-cov's kind of region: left out by the preprocessor
FLAGS = "-O1 -fprofile-instr-generate -fcoverage-mapping"

Place = tuple[int, int, int, int]  # first line and column, last line and column


@dataclass
class Source:
    """How often each line ran, and each condition with either value."""

    lines: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    conditions: dict[Place, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    skipped: set[int] = field(default_factory=set)

    def missed_lines(self) -> list[int]:
        return [line for line, count in self.lines.items()
                if not count and line not in self.skipped]

    def known(self) -> Iterator[tuple[Place, list[int]]]:
        """Conditions but for those of which the compiler knows the value."""
        for place, counts in self.conditions.items():
            if any(counts) or not self.lines.get(place[0], 0):
                yield place, counts

    def missed_sides(self) -> list[tuple[Place, str]]:
        return [(place, "is never true" if side == 0 else "is never false")
                for place, counts in self.known() for side in (0, 1) if not counts[side]]


@dataclass(frozen=True)
class Missed:
    line: int
    code: str  # of the condition, or of the line
    what: str


def coverage(work: Work) -> None:
    if not all(work.has(tool) for tool in ("clang++", "llvm-cov", "llvm-profdata")):
        return
    folder = build(work, "build-coverage", "-DCMAKE_CXX_COMPILER=clang++", "-DLMFUSION_TORCH=OFF",
                   "-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_CXX_FLAGS={FLAGS}")
    if folder is None:
        return
    sources: dict[str, Source] = defaultdict(Source)
    for program in sorted((folder / "tests" / "cpp").glob("*_test")):
        work.status = program.name
        profile = work.folder / f"{program.name}.profraw"
        profile.unlink(missing_ok=True)
        if work.must(program, limit=900, environment={"LLVM_PROFILE_FILE": f"{profile}%m"}):
            add(program, work.folder, sources)
    judge(work, sources)


def add(program: Path, folder: Path, sources: dict[str, Source]) -> None:
    """Adds what one program ran. Each is read on its own: programs may have functions of the same
    name. A process that forks writes more than one profile (`%m`)."""
    profiles = [str(each) for each in folder.glob(f"{program.name}.profraw*")]
    merged = folder / f"{program.name}.profdata"
    subprocess.run(["llvm-profdata", "merge", "-sparse", *profiles, "-o", str(merged)], check=True)
    for profile in profiles:
        Path(profile).unlink()

    def report(form: str) -> str:
        return subprocess.run(["llvm-cov", "export", f"-format={form}",
                               f"-instr-profile={merged}", str(program)],
                              capture_output=True, text=True, check=True).stdout
    add_lines(report("lcov"), sources)
    add_conditions(json.loads(report("text")), sources)


def path_of(file: str) -> str:
    """In the repository; empty where the file is none of ours."""
    path = os.path.relpath(os.path.normpath(file), ROOT)
    return path if path.startswith(("src/", "include/")) else ""


def add_lines(report: str, sources: dict[str, Source]) -> None:
    path = ""
    for line in report.splitlines():
        kind, _, value = line.partition(":")
        if kind == "SF":
            path = path_of(value)
        elif kind == "DA" and path:
            number, count = value.split(",")[:2]
            sources[path].lines[int(number)] += int(count)


def add_conditions(report: dict[str, Any], sources: dict[str, Source]) -> None:
    for function in report["data"][0]["functions"]:
        paths = [path_of(file) for file in function["filenames"]]
        for *place, true, false, file, _, _ in function["branches"]:
            if paths[file]:
                counts = sources[paths[file]].conditions[tuple(place)]
                counts[0] += true
                counts[1] += false
        for first, _, last, _, _, file, _, kind in function["regions"]:
            if kind == SKIPPED and paths[file]:
                sources[paths[file]].skipped.update(range(first, last + 1))


def missed(source: Source, code: list[str]) -> list[Missed]:
    lines = source.missed_lines()
    found = [Missed(line, code[line - 1].strip(), "does not run") for line in lines]
    for (line, column, last, end), what in source.missed_sides():
        if line in lines:
            continue
        text = code[line - 1]
        whole = text[column - 1:end - 1] if line == last else text.strip()
        if not text[:column - 1].rstrip().endswith("switch ("):
            found.append(Missed(line, whole, what))
    return found


def judge(work: Work, sources: dict[str, Source]) -> None:
    reasons, used = read_reasons(REASONS), set()
    for path, source in sorted(sources.items()):
        code = (ROOT / path).read_text().splitlines()
        source.skipped.update(i for i, line in enumerate(code, 1) if line.startswith("#"))
        found = missed(source, code)
        lines = sum(1 for each in found if each.what == "does not run")
        work.outcome.count("lines", len(source.lines.keys() - source.skipped))
        work.outcome.count("lines not run", lines)
        work.outcome.count("sides of branches", 2 * sum(1 for _ in source.known()))
        work.outcome.count("sides not run", len(found) - lines)
        unexplained = []
        for each in sorted(found, key=lambda each: each.line):
            known = {(path, key) for key in keys(each, code)} & reasons.keys()
            used |= known
            if not known:
                unexplained.append(f"{each.line}: {each.code}: {each.what}")
        if unexplained:
            work.outcome.findings.append("\n".join([
                f"{path}: no test runs these, and no reason says why", *unexplained]))
    for path, text in sorted(reasons.keys() - used):
        if reasons[path, text].startswith(CHANCE):
            continue
        work.outcome.findings.append(f"{REASONS.name} has a reason that nothing needs: "
                                     f"{path} | {text}")


def keys(each: Missed, code: list[str]) -> Iterator[str]:
    """What a reason may call it: the condition, its line, or a line whose block it is in."""
    text = code[each.line - 1]
    yield each.code
    yield text.strip()
    yield text.strip() + BLOCK
    indent = len(text) - len(text.lstrip()) + text.lstrip().startswith("}")
    for before in reversed(code[:each.line - 1]):
        depth = len(before) - len(before.lstrip())
        if before.strip() and depth < indent and not before.startswith("#"):
            yield before.strip() + BLOCK
            indent = depth

