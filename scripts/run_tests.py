"""Runs lint, the C++ and the Python tests, and adds up what they say: `./run test`."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import lint

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
RESULTS = BUILD / "test-results"
SANITIZERS = ["sanitize", "thread"]  # presets of CMakePresets.json


@dataclass
class Tally:
    """What came of the tests; names are those a reader can look for."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name, reason


def main(pytest_arguments: list[str]) -> int:
    """Runs everything, prints the sum, and returns the exit status."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.glob("*.xml"):
        old.unlink()
    tally = Tally()
    if not pytest_arguments:
        run_lint(tally)
    run_cpp_tests(tally)
    if os.environ.get("CI"):
        for preset in SANITIZERS:
            run_cpp_tests(tally, preset)
    run_python_tests(tally, pytest_arguments)
    print()
    for name, reason in tally.skipped:
        print(f"skipped: {name}: {reason}")
    for name in tally.failed:
        print(f"failed: {name}")
    print(f"{tally.passed} passed, {len(tally.failed)} failed, {len(tally.skipped)} skipped")
    return 1 if tally.failed or not tally.passed else 0


def run_lint(tally: Tally) -> None:
    """Each check counts as a test."""
    for finding in lint.run_all():
        name = f"lint: {finding.name}"
        if finding.problems:
            tally.failed.append(name)
        elif finding.skipped:
            tally.skipped.append((name, finding.skipped))
        else:
            tally.passed += 1


def run_cpp_tests(tally: Tally, preset: str = "") -> None:
    """CTest runs the programs of the build, or of a sanitizer's preset, which is built first.

    Each GoogleTest program reports its own tests in a file.
    """
    if preset and not built(preset):
        tally.failed.append(f"{preset}: the build failed")
        return
    reports = RESULTS / f"gtest-programs{preset and '-'}{preset}"
    junit = RESULTS / f"ctest{preset and '-'}{preset}.xml"
    # No colour or sharding of the caller's may change what the programs do.
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("GTEST_")}
    where = ["--preset", preset] if preset else ["--test-dir", BUILD, "--output-on-failure"]
    status = subprocess.run(
        ["ctest", *where, "--no-tests=error", "--output-junit", junit], cwd=ROOT,
        env={**environment, "GTEST_OUTPUT": f"xml:{reports}/"}, check=False).returncode
    failed_before = len(tally.failed)
    if junit.exists():
        for program in ElementTree.parse(junit).getroot().iter("testcase"):
            add_program(tally, program, reports, f"{preset}: " if preset else "")
    if status and len(tally.failed) == failed_before:
        tally.failed.append(f"{preset or 'ctest'} ended with status {status}")


def built(preset: str) -> bool:
    """The rooms without torch and their tests, with the sanitizers of a CMake preset."""
    environment = {**os.environ, "CCACHE_BASEDIR": str(ROOT), "CCACHE_NOHASHDIR": "1"}
    return all(subprocess.run(["cmake", *command, "--preset", preset], cwd=ROOT, env=environment,
                              stdout=subprocess.DEVNULL, check=False).returncode == 0
               for command in (["--no-warn-unused-cli"], ["--build"]))


def add_program(tally: Tally, program: ElementTree.Element, reports: Path, prefix: str) -> None:
    """Adds one program of CTest: its tests where it lists them, else itself."""
    name = program.get("name", "?")
    report = reports / f"{name}.xml"
    failed = program.get("status") == "fail" or program.find("failure") is not None
    if not report.exists():
        add(tally, prefix + name, failed=failed, skip=program.find("skipped"))
        return
    failed_before = len(tally.failed)
    for test in ElementTree.parse(report).getroot().iter("testcase"):
        if test.get("status") != "notrun":  # filtered or disabled
            add(tally, f"{prefix}{name}: {test.get('classname')}.{test.get('name')}",
                failed=test.find("failure") is not None, skip=test.find("skipped"))
    report.unlink()
    if failed and len(tally.failed) == failed_before:
        tally.failed.append(f"{prefix}{name}: the program failed outside its tests")


def run_python_tests(tally: Tally, arguments: list[str]) -> None:
    """Pytest on two processes."""
    junit = RESULTS / "pytest.xml"
    status = subprocess.run(
        [sys.executable, "-m", "pytest", ROOT / "tests" / "python", "-n", "2", "-q",
         f"--junitxml={junit}", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT, check=False).returncode
    failed_before = len(tally.failed)
    if junit.exists():
        for test in ElementTree.parse(junit).getroot().iter("testcase"):
            failed = test.find("failure") is not None or test.find("error") is not None
            add(tally, f"{test.get('classname')}.{test.get('name')}", failed=failed,
                skip=test.find("skipped"))
    if status and len(tally.failed) == failed_before:
        tally.failed.append(f"pytest ended with status {status}")


def add(tally: Tally, name: str, *, failed: bool, skip: ElementTree.Element | None) -> None:
    """Adds one test."""
    if failed:
        tally.failed.append(name)
    elif skip is not None:
        tally.skipped.append((name, " ".join(skip.get("message", "").split()) or "no reason given"))
    else:
        tally.passed += 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
