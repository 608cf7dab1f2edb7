"""clang-tidy over every source of the library; `./run lint` looks at the changed files, of which
tests, benchmarks and bindings too.

`.clang-tidy` says what is looked at, and why some checks are not. The rooms without torch come
first: a source with torch takes a minute.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lint

from nightly.outcome import ROOT, Work

WITH_TORCH = ("src/ops/", "src/engine/")


def tidy(work: Work) -> None:
    if not work.has("clang-tidy"):
        return
    commands = lint.commands_for_clang()
    files = sources(commands)
    left: list[str] = []

    def look(file: str) -> str:
        if time.monotonic() > work.end - 60:
            left.append(file)
            return ""
        work.status = Path(file).name
        return lint.tidy(file, commands)

    with ThreadPoolExecutor(work.cores) as pool:
        problems = list(pool.map(look, files))
    work.outcome.count("sources", len(files) - len(left))
    work.outcome.findings += [problem.strip() for problem in problems if problem]
    if left:
        work.outcome.notes.append(f"there was no time for {len(left)} more, of {len(files)}")


def sources(folder: Path) -> list[str]:
    """In the repository, those without torch first. Clang-tidy reads nvcc's options for none."""
    commands = json.loads((folder / "compile_commands.json").read_text())
    names = {os.path.relpath(each["file"], ROOT) for each in commands}
    ours = [name for name in names if name.startswith("src/") and not name.endswith(".cu")]
    return sorted(ours, key=lambda name: (name.startswith(WITH_TORCH), name))
