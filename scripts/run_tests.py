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


def run_cpp_tests(tally: Tally) -> None:
    """CTest runs the programs; each GoogleTest program reports its own tests in a file."""
    junit = RESULTS / "ctest.xml"
    # No colour or sharding of the caller's may change what the programs do.
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("GTEST_")}
    status = subprocess.run(
        ["ctest", "--test-dir", BUILD, "--output-on-failure", "--no-tests=error",
         "--output-junit", junit],
        env={**environment, "GTEST_OUTPUT": f"xml:{RESULTS}/gtest-programs/"},
        check=False).returncode
    failed_before = len(tally.failed)
    if junit.exists():
        for program in ElementTree.parse(junit).getroot().iter("testcase"):
            add_program(tally, program)
    if status and len(tally.failed) == failed_before:
        tally.failed.append(f"ctest ended with status {status}")


def add_program(tally: Tally, program: ElementTree.Element) -> None:
    """Adds one program of CTest: its tests where it lists them, else itself."""
    name = program.get("name", "?")
    report = RESULTS / "gtest-programs" / f"{name}.xml"
    failed = program.get("status") == "fail" or program.find("failure") is not None
    if not report.exists():
        add(tally, name, failed=failed, skip=program.find("skipped"))
        return
    failed_before = len(tally.failed)
    for test in ElementTree.parse(report).getroot().iter("testcase"):
        if test.get("status") != "notrun":  # filtered or disabled
            add(tally, f"{name}: {test.get('classname')}.{test.get('name')}",
                failed=test.find("failure") is not None, skip=test.find("skipped"))
    report.unlink()
    if failed and len(tally.failed) == failed_before:
        tally.failed.append(f"{name}: the program failed outside its tests")


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
