"""Small wrong edits of the tree and the plan, each of which a test must notice.

A mutant is one edit of one line: a comparison turned, a number one more or less, a sign, a
condition or a statement left out. It is built and the tests of tree, plan and cache run, the
quickest first, until one fails. One that none notices is a finding, unless
`tests/mutation_reasons.txt` says why nobody could; `EQUIVALENT` says which lines are left out
altogether.
"""

from __future__ import annotations

import random
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from nightly.builds import build, build_again
from nightly.outcome import ROOT, Work
from nightly.reasons import read_reasons

REASONS = ROOT / "tests" / "mutation_reasons.txt"
SOURCES = ["tree/token_tree.cpp", "tree/batch_plan.cpp", "tree/pinned_paths.cpp",
           "cache/call_chunk.cpp"]
TESTS = ["token_tree_test", "batch_plan_test", "path_scorer_test", "warm_start_test",
         "cache_random_test", "cache_faults_test", "call_watch_test"]
COPIED = ["src", "include", "third_party", "tests/cpp", "CMakeLists.txt", "CMakePresets.json"]
PATIENCE = 20.0  # times what a test takes of the right code; a mutant that hangs is noticed too
EDITS = [
    (r" == ", " != "), (r" != ", " == "), (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "),
    (r" >= ", " > "), (r" && ", " || "), (r" \|\| ", " && "), (r" \+ 1\b", ""), (r" - 1\b", ""),
    (r" \+ ", " - "), (r"\+\+", "--"), (r"--", "++"), (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"), (r"\b0\b", "1"), (r"\bif \((?!const)", "if (!("),
    (r"std::max", "std::min"), (r"std::min", "std::max")]
STATEMENT = re.compile(r"^\s+[a-zA-Z_:\[\]().>\-\+]+.*;$")
NO_STATEMENT = re.compile(
    r"^\s+(return|const|auto|int|NodeId|break|throw|std::vector|using|Stopwatch|BatchPlan|Questions|"
    r"OutputAnswers|VisibleNode|Node\b|Wanted|bool|float)")
# Of a line, why an edit of it changes nothing that can be seen.
EQUIVALENT = {
    "reserve": "room that is made later at the latest",
    "std::max<size_t>(16": "how much room is made at once",
    "Lap()": "clocks, which no test asserts",
    "_seconds": "clocks, which no test asserts",
    "previous_sibling": "of the first of siblings it is read only to be written",
}


@dataclass(frozen=True)
class Mutant:
    source: str
    line: int  # from 1
    old: str
    new: str

    def __str__(self) -> str:
        return f"src/{self.source}:{self.line}: {self.edit}"

    @property
    def edit(self) -> str:
        return f"{self.old.strip()} -> {self.new.strip() or '(gone)'}"

    @property
    def reason(self) -> str:
        """Why nobody could notice any edit of this line; empty where somebody should."""
        return next((why for what, why in EQUIVALENT.items() if what in self.old), "")


def mutants(source: str) -> list[Mutant]:
    found = []
    for number, line in enumerate((ROOT / "src" / source).read_text().splitlines(), 1):
        code = line.split("//")[0].rstrip()
        if not code.strip() or code.lstrip().startswith(("#", "namespace", "using", "for (const")):
            continue
        for pattern, replacement in EDITS:
            for match in re.finditer(pattern, code):
                new = code[:match.start()] + replacement + code[match.end():]
                if replacement == "if (!(":
                    new = new.replace(") {", ")) {") if code.endswith("{") else ""
                if new:
                    found.append(Mutant(source, number, code, new))
        if STATEMENT.match(code) and not NO_STATEMENT.match(code):
            found.append(Mutant(source, number, code, ""))
    return found


def mutate(work: Work) -> None:
    """As many mutants, chosen at random, as there is time for; a copy of the sources is changed."""
    copy = work.folder / "sources"
    shutil.rmtree(copy, ignore_errors=True)
    for name in COPIED:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    folder = build(work, str(copy / "build"), "-DLMFUSION_TORCH=OFF", "-DCMAKE_BUILD_TYPE=Debug",
                   "-DCMAKE_CXX_FLAGS=-O1 -D_GLIBCXX_ASSERTIONS", source=copy, targets=tuple(TESTS))
    if folder is None:
        return
    chosen = [mutant for source in SOURCES for mutant in mutants(source) if not mutant.reason]
    random.Random(work.seed).shuffle(chosen)
    reasons = read_reasons(REASONS)
    for path, edit in reasons:
        if not any((f"src/{each.source}", each.edit) == (path, edit) for each in chosen):
            work.outcome.findings.append(f"{REASONS.name}: there is no such edit any more: "
                                         f"{path} | {edit}")
    tests = times_of_right_code(work, folder)
    if len(tests) < len(TESTS):
        return
    end = time.monotonic() + work.seconds
    for number, mutant in enumerate(chosen, 1):
        if time.monotonic() > end:
            break
        work.status = f"mutant {number} of {len(chosen)}"
        known = (f"src/{mutant.source}", mutant.edit) in reasons
        if try_one(work, copy, folder, mutant, tests) or known:
            continue
        work.outcome.findings.append(f"no test notices {mutant}")
    work.outcome.count("mutants possible", len(chosen))


def times_of_right_code(work: Work, folder: Path) -> dict[str, float]:
    """Seconds of each test, the quickest first; one that fails by itself could notice nothing."""
    times = {}
    for test in TESTS:
        begin = time.monotonic()
        if work.must(folder / "tests" / "cpp" / test):
            times[test] = time.monotonic() - begin
    return dict(sorted(times.items(), key=lambda each: each[1]))


def try_one(work: Work, copy: Path, folder: Path, mutant: Mutant, tests: dict[str, float]) -> bool:
    """Whether somebody notices it, the compiler included."""
    path = copy / "src" / mutant.source
    right = path.read_text()
    lines = right.splitlines()
    lines[mutant.line - 1] = mutant.new
    path.write_text("\n".join(lines) + "\n")
    try:
        noticed = noticing(work, folder, tests)
    finally:
        path.write_text(right)
    if time.monotonic() >= work.end:  # which is what ended the test
        return True
    if noticed != "compiler":
        work.outcome.count("mutants", 1)
        work.outcome.count("mutants noticed", 1 if noticed else 0)
    return bool(noticed)


def noticing(work: Work, folder: Path, tests: dict[str, float]) -> str:
    """The test that fails, or "compiler"; empty where none does."""
    for test, seconds in tests.items():
        if not build_again(work, folder, test, quiet=True):
            return "compiler"
        program, limit = folder / "tests" / "cpp" / test, 2 + PATIENCE * seconds
        command = f"ulimit -v 4000000; exec timeout -k 5 {limit:.0f} {program}"
        if work.run("bash", "-c", command, limit=limit + 30) != 0:
            return test
    return ""
