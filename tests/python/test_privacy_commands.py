"""No text that a command was given is in what it says of what went wrong: on stderr, in logs, in
errors."""

from __future__ import annotations

import json
import logging
import traceback
import warnings
from pathlib import Path

import lmfusion
import pytest
from lmfusion.cli import main

SECRET = "abracadabra"
BAD = f"{SECRET}\ud800{SECRET}"  # a lone surrogate: no UTF-8
LONG = " ".join([SECRET] * 400)
NOT_UTF8 = f"{SECRET} {SECRET}".encode() + b"\xff\n"
FILES = {
    "not.utf8": NOT_UTF8,
    "no.shape": f"{SECRET} {SECRET}\n{SECRET}\n".encode(),
    "no.number.tsv": f"{SECRET}\t{SECRET}\n".encode(),
    "no.json.jsonl": f'{{"text": "{SECRET}", {SECRET}\n'.encode(),
    "other.jsonl": json.dumps({"utterance": "u", "text": SECRET, "score": SECRET}).encode() + b"\n",
    "rows.jsonl": json.dumps({"utterance": "u", "text": SECRET, "score": -1.0}).encode() + b"\n",
    "lines.txt": f"{SECRET};x;y\n".encode(), "long.txt": LONG.encode() + b"\n"}
SMALL = ["--kv-cache-bytes", "100000"]
COMMANDS: dict[str, list[str]] = {
    "a text": ["score", BAD], "a long text": ["score", LONG, *SMALL],
    "texts of a file": ["score", "--file", "{}/not.utf8"],
    "two ways": ["score", SECRET, "--per-token", "--eos"],
    "no such option": ["score", SECRET, "--no-such-option"],
    "a context": ["continue", BAD, "cat"], "a word": ["continue", SECRET, BAD],
    "an explained word": ["explain", SECRET, BAD],
    **{f"lists of {name}": ["rescore", f"{{}}/{name}", "-o", "{}/out"]
       for name in ("not.utf8", "no.shape", "other.jsonl")},
    "requests": ["bench", "{}/no.json.jsonl"], "lines": ["brain-to-text", "{}/lines.txt"],
    "tuning": ["tune", "{}/rows.jsonl", "--ref", "{}/no.shape"],
    "comparing": ["compare", "{}/no.number.tsv", "{}/rows.jsonl", "--ref", "{}/no.shape"],
    "sentences": ["compute-sentence-scores", "--infile", "{}/no.shape", "--outfile", "{}/out"],
    **{f"contexts of {name}": ["prime", "--contexts", f"{{}}/{name}", "-o", "{}/out", *SMALL]
       for name in ("not.utf8", "long.txt")}}
MODEL_FREE = ("compare",)


def shown(error: BaseException) -> str:
    """What a log shows of an error: its traceback without the lines of code, and its repr."""
    return repr(error) + "".join(
        line for line in traceback.format_exception(error) if not line.startswith("  File"))


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
                  capfd: pytest.CaptureFixture[str]) -> None:
    for file, content in FILES.items():
        (tmp_path / file).write_bytes(content)
    command = [part.format(tmp_path) if part.startswith("{}/") else part
               for part in COMMANDS[name]]
    model = [] if command[0] in MODEL_FREE else ["--model", str(bundle)]
    caplog.set_level(logging.NOTSET)
    said = ""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            main([command[0], *model, *command[1:]])
        except BaseException as error:
            if not isinstance(error, (SystemExit, lmfusion.Error, ValueError)):
                raise
            said = shown(error)
    found = [said, capfd.readouterr().err, caplog.text, *(str(each.message) for each in warned)]
    assert not any(SECRET in each for each in found), found
