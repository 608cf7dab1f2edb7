"""The shell snippets of the documents: fenced and indented ones, run with a tiny model."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmfusion.pretrained
import pytest
from lmfusion.cli import main
from oracle import Oracle
from test_docs import PAGES, name

OURS = re.compile(r"(?:time )?(?:python -m )?lmfusion (?P<rest>.+)")
# What is not run: how a line begins, and why.
NOT_RUN = {
    "./run": "the build itself: minutes",
    "build/": "what the build made; tests/python/test_bench.py runs it",
    "cmake": "minutes; tests/python/test_find_package.py builds and runs it",
    "out/decoder": "tests/python/test_find_package.py builds and runs it",
    "ctest": "the C++ tests themselves",
    "pip": "network",
    "tar": "what pip downloads",
    "FLASHLIGHT_TEXT_INCLUDE=": "the build itself: minutes",
    "bench/": "needs a GPU",
    "g++": "needs an installed lmfusion: tests/python/test_find_package.py",
    "bash": "needs a GPU",
    "sudo": "network",
    "curl": "needs a service: tests/python/test_service.py",
    "export": "for the service",
    ".venv/bin/python -m pytest": "these tests themselves",
    "for p in": "the sanitizers: minutes",
    "cd": "needs a checkout of another toolkit",
    "git": "network",
    "python bench": "a benchmark: minutes; tests/python/test_bench.py and others test them",
    "python examples": "tests/python/test_examples.py",
    "python -m lmfusion.lm_eval": "a task from the hub; tests/python/test_lm_eval.py",
    "lm_eval": "a task file; tests/python/test_lm_eval.py",
    "lmfusion serve": "tests/python/test_service.py",
    "lmfusion rescore NBEST -o OUTPUT --ray": "clusters: tests/python/test_scaling.py",
    "lmfusion export-truecaser": "27 MB of statistics: tests/python/test_truecaser.py",
    "lmfusion export MODEL_FOLDER -o model.lmf --truecaser": "the same",
    "lmfusion bench": "needs recorded requests: tests/python/test_cli_scoring.py",
    "lmfusion --install-completion": "writes into the user's shell",
}


def shell_lines(text: str) -> Iterator[str]:
    """Lines of blocks whose first one calls a program, continued lines joined."""
    fenced = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = [block.replace("\n    ", "\n")[4:] for block in
                re.findall(r"(?<=\n\n)(?:    \S.*\n(?:    .*\n)*)", outside)]
    programs = tuple(beginning.split()[0] for beginning in (*NOT_RUN, "lmfusion", "head", "# "))
    for block in [*fenced, *(one for one in indented if one.split()[0] in programs)]:
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield line


LINES = {page: lines for page in PAGES
         if (lines := list(shell_lines(page.read_text(encoding="utf-8"))))}


def of_ours(line: str) -> str:
    """"python -m lmfusion X" as "lmfusion X"."""
    return re.sub(r"^(?:time )?(?:\.venv/bin/)?python -m lmfusion ", "lmfusion ", line.strip())


def reason(line: str) -> str | None:
    return next((why for beginning, why in NOT_RUN.items()
                 if of_ours(line).startswith(beginning)), None)


@pytest.fixture
def folder(tmp_path: Path, bundle: Path, oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: every file that the documents name."""
    lists = [{"id": f"u{i}", "ref": "the cat sat", "nbest": [
        {"text": "the cat sat on", "score": -2.0}, {"text": "the cat sat", "score": -2.5 - i % 3}]}
        for i in range(12)]
    nbest = "".join(json.dumps(one) + "\n" for one in lists)
    trn = "".join(f"the cat sat (u{i})\n" for i in range(12))
    decoded = json.dumps({"utts": {one["id"]: {"output": [
        {"rec_text": each["text"], "score": each["score"], "text": "the cat sat"}
        for each in one["nbest"]]} for one in lists}})
    for path, content in {
            "nbest.jsonl": nbest, "other.jsonl": nbest, "corpus.jsonl": nbest, "dev.jsonl": nbest,
            "test.jsonl": nbest, "refs.trn": trn, "after.trn": trn, "dev.trn": trn,
            "before.trn": trn.replace("sat", "sat on"), "texts": "the cat\nsat on a mat\n",
            "exp/decode/result.json": decoded, "nbest.txt": "the cat;-1;-2\nthe mat;-2;-3\n",
            "$adir.JOB/words_text": "u1-1 the cat\nu1-2 the mat\n"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    for copy in ("model.lmf", "MODEL", "kept/models/NAME.lmf"):
        (tmp_path / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle, tmp_path / copy)
    oracle.model.save_pretrained(tmp_path / "FOLDER")
    oracle.tokenizer.save_pretrained(tmp_path / "FOLDER")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMFUSION_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(lmfusion.pretrained, "default_model", lambda **_: bundle)
    return tmp_path


@pytest.mark.parametrize("page", LINES, ids=name)
def test_commands_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch,
                      capsys: pytest.CaptureFixture[str]) -> None:
    for line in LINES[page]:
        if reason(line):
            continue
        if ours := OURS.fullmatch(of_ours(line)):
            words = shlex.split(ours["rest"], comments=True)
            if "<" in words:
                at = words.index("<")
                monkeypatch.setattr(sys, "stdin", io.StringIO(Path(words[at + 1]).read_text()))
                del words[at:at + 2]
            status = main(words)
            assert status == 0, f"{name(page)}: {line}\n{capsys.readouterr().err}"
        else:
            done = subprocess.run(["bash", "-c", line], cwd=folder, text=True, capture_output=True,
                                  check=False)
            assert done.returncode == 0, f"{name(page)}: {line}\n{done.stderr}"


def test_the_pattern_finds_what_it_should() -> None:
    text = "a\n\n    lmfusion x \\\n        y\n    # no\n\n    x = 1\n\n```sh\npip install z\n```\n"
    assert [line.split() for line in shell_lines(text)] == [["pip", "install", "z"],
                                                            ["lmfusion", "x", "y"]]
    run = [line for lines in LINES.values() for line in lines if not reason(line)]
    assert len(run) >= 15 and len(LINES) >= 10
