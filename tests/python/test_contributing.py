"""What CONTRIBUTING.md tells to run, and the files that it names, exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = "\n".join(re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
# A path from the root or within a room of it; capitals stand for a name of one's own.
NAMES = sorted({path for path in re.findall(r"`([\w./]+(?:/\w[\w.]*|\.\w+))`", TEXT)
                if not re.search(r"[A-Z]{3,}|\.(?:json)$", path.removesuffix("README.md"))})


@pytest.mark.parametrize("path", NAMES)
def test_files_exist(path: str) -> None:
    folders = [ROOT, ROOT / "python" / "lmfusion" / "exporter", ROOT / "tests" / "python",
               ROOT / "src" / "text" / "tokenizers"]
    assert any((folder / path).exists() for folder in folders)


def test_the_pattern_finds_what_it_should() -> None:
    assert {"requirements.txt", "src/README.md", "src/engine/engines.cpp", "cuts.h"} <= set(NAMES)
    assert len(NAMES) > 40


def test_presets_and_programs_exist() -> None:
    presets = json.loads((ROOT / "CMakePresets.json").read_text())
    for word, kind in (("cmake", "configurePresets"), ("cmake --build", "buildPresets"),
                       ("ctest", "testPresets")):
        there = {one["name"] for one in presets[kind]}
        named = set(re.findall(rf"{word} --preset (\w+)", COMMANDS))
        looped = re.findall(r"for p in ([\w ]+);", COMMANDS)[0].split()
        assert named <= there and set(looped) <= there
    for program in re.findall(r"build/tests/cpp/(\w+)", TEXT):
        assert (ROOT / "tests" / "cpp" / f"{program}.cpp").exists()


def test_the_filters_find_tests() -> None:
    [ctest] = re.findall(r"ctest --test-dir build -R (\w+)", COMMANDS)
    assert list((ROOT / "tests" / "cpp").glob(f"*{ctest}*_test.cpp"))
    [python] = re.findall(r"pytest tests/python -k (\w+)", COMMANDS)
    assert list((ROOT / "tests" / "python").glob(f"test_*{python}*.py"))


def test_what_run_is_told_is_known() -> None:
    shown = subprocess.run([ROOT / "run", "--help"], text=True, capture_output=True, check=False)
    usage = shown.stdout + shown.stderr
    for command in set(re.findall(r"`?\./run (\w+)", TEXT)):
        assert re.search(rf"\b{command}\b", usage), command
