"""What every change must pass beside its tests: format, lint, types, directions (`./run lint`).

Each check is one line of the summary. clang-tidy looks at the C++ files that changed since
$LMFUSION_BASE, else since the merge base with origin/main, else since the commit before; the stage
`tidy` of `./run nightly` looks at all of them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from include_directions import wrong_includes

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
TIDY_SECONDS = 180  # files that are not reached by then are counted


@dataclass
class Finding:
    """What came of one check."""

    name: str
    problems: str = ""  # what the tool printed; empty where all is well
    skipped: str = ""  # why the check could not be made
    seconds: float = 0.0


def main() -> int:
    findings = run_all()
    for finding in findings:
        word = "skipped" if finding.skipped else "failed" if finding.problems else "passed"
        print(f"lint: {finding.name}: {word} ({finding.seconds:.0f} s) {finding.skipped}".rstrip())
    return int(any(finding.problems for finding in findings))


def run_all() -> list[Finding]:
    """Makes every check, and prints what is wrong as it is found."""
    findings = []
    for name, check in CHECKS.items():
        begin = time.monotonic()
        finding = check(name)
        finding.seconds = time.monotonic() - begin
        if finding.problems:
            print(f"--- {name}\n{finding.problems.rstrip()}", flush=True)
        findings.append(finding)
    return findings


def clang_format(name: str) -> Finding:
    files = run("git", "ls-files", "*.h", "*.cpp", "*.cu").stdout.splitlines()
    if not files:
        return Finding(name, skipped="this is no git checkout")
    if not shutil.which("clang-format"):
        return Finding(name, skipped="clang-format is not installed")
    return of_run(name, "clang-format", "--dry-run", "-Werror", *files)


def ruff(name: str) -> Finding:
    return by_module(name, "ruff", "check", "--quiet", "--output-format", "concise", ".")


def mypy(name: str) -> Finding:
    return by_module(name, "mypy", "--no-error-summary")  # pyproject.toml says what


def includes(name: str) -> Finding:
    return Finding(name, "\n".join(wrong_includes()))


def clang_tidy(name: str) -> Finding:
    """The changed sources, and for a changed header the source of its name."""
    if not (BUILD / "compile_commands.json").exists():
        return Finding(name, skipped="no build folder; ./run setup makes it")
    if not shutil.which("clang-tidy"):
        return Finding(name, skipped="clang-tidy is not installed")
    changed = [file for file in changed_files() if Path(file).suffix in (".h", ".cpp")]
    if not changed:
        return Finding(name)
    commands = commands_for_clang()
    files = sources_of(changed, commands)
    end = time.monotonic() + TIDY_SECONDS
    late: list[str] = []

    def look(file: str) -> str:
        if time.monotonic() > end:
            late.append(file)
            return ""
        return tidy(file, commands)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = "".join(pool.map(look, files))
    print(f"clang-tidy: {len(files) - len(late)} changed files"
          + (f"; no time for {len(late)} more" if late else ""))
    return Finding(name, problems)


def tidy(file: str, commands: Path) -> str:
    """What clang-tidy says of a source; empty where all is well."""
    done = run("clang-tidy", "--quiet", "-p", str(commands), file)
    return done.stdout if done.returncode else ""


def commands_for_clang() -> Path:
    """A folder with a command for each source alone.

    The build compiles several sources together, with a precompiled header of g++'s.
    """
    folder = BUILD / "clang-tidy"
    settings = (BUILD / "CMakeCache.txt").read_text()
    cuda = re.search("^LMFUSION_CUDA_ARCHITECTURES:.*", settings, re.M)
    done = run(
        "cmake", "--preset", "release", "-B", str(folder), f"-DPython3_EXECUTABLE={sys.executable}",
        "-DCMAKE_UNITY_BUILD=OFF", "-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON",
        *([f"-D{cuda.group()}"] if cuda else []))
    if done.returncode != 0:
        raise RuntimeError(f"cmake failed in {folder}:\n{done.stderr}")
    return folder


CHECKS: dict[str, Callable[[str], Finding]] = {
    "clang-format": clang_format, "ruff": ruff, "mypy": mypy, "include directions": includes,
    "clang-tidy": clang_tidy}


def by_module(name: str, module: str, *arguments: str) -> Finding:
    """A tool of this Python's environment."""
    if importlib.util.find_spec(module) is None:
        return Finding(name, skipped=f"{module} is not installed")
    return of_run(name, sys.executable, "-m", module, *arguments)


def of_run(name: str, *command: str) -> Finding:
    done = run(*command)
    return Finding(name, (done.stdout + done.stderr or name) if done.returncode else "")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def changed_files() -> list[str]:
    """Also what is not committed yet; nothing where git knows no commit before this one."""
    base = os.environ.get("LMFUSION_BASE") or run("git", "merge-base", "origin/main",
                                                  "HEAD").stdout.strip()
    if not base or base == run("git", "rev-parse", "HEAD").stdout.strip():
        base = "HEAD~1"
    return run("git", "diff", "--name-only", "--diff-filter=d", base).stdout.splitlines()


def sources_of(files: list[str], folder: Path) -> list[str]:
    """Sources that the folder's commands know how to compile."""
    commands = (folder / "compile_commands.json").read_text()
    sources = {str(Path(file).with_suffix(".cpp")) for file in files}
    return sorted(source for source in sources if f"/{source}\"" in commands)


if __name__ == "__main__":
    sys.exit(main())
