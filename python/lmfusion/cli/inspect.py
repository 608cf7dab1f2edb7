"""`lmfusion inspect`: what a model file says of itself, and whether it is right."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from lmfusion import _core
from lmfusion.cli.scorer_options import MODEL_HELP
from lmfusion.errors import ModelFileError
from lmfusion.memory import memory_table, read_model
from lmfusion.pretrained import model_file

PARTS = "extra/lmfusion.parts.json"


def inspect(
        model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
        plan: Annotated[bool, typer.Option(
            "--plan", help="print the memory that contexts=N texts of tokens=N tokens take, in "
                           "every type, instead")] = False,
        numbers: Annotated[list[str] | None, typer.Argument(
            metavar="[NAME=NUMBER]...",
            help="of the plan; default: contexts=50 tokens=100")] = None,
        verify: Annotated[bool, typer.Option(
            "--verify", help="check every field, size and checksum, print what is wrong, and the "
                             "SHA-256 that identifies the file's whole content, instead")] = False,
        sha256: Annotated[str, typer.Option(
            metavar="HEX", help="with --verify: the SHA-256 that the file must have, as its "
                                "publisher printed it")] = "",
        json_: Annotated[bool, typer.Option(
            "--json", help="the description is JSON in any case")] = False) -> None:
    """Print the description in a model file (JSON), its memory plan, or what is wrong with it."""
    path = model_file(model)
    settings = dict(_setting(text) for text in numbers or ())
    if settings and not plan:
        raise ValueError(f"{' '.join(numbers or ())}: for --plan only")
    if sha256 and not verify:
        raise ValueError("--sha256: for --verify only")
    if verify:
        _verify(path, sha256)
    elif plan:
        description, parameters = read_model(path)
        print(memory_table(description, **settings, parameters=parameters))
    else:
        print(_core.read_description(str(path)))


def _setting(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in ("contexts", "tokens") or not number.isdecimal() or int(number) < 1:
        raise typer.BadParameter(f"{text}: contexts=N or tokens=N expected")
    return name, int(number)


def _verify(path: Path, expected: str) -> None:
    problems = _core.verify_model_file(str(path)) or _other_content(path)
    digest = "" if problems else _digest_of_table(path)
    if expected and not problems and digest.lower() != expected.strip().lower():
        problems = [f"the SHA-256 of its table of parts is {digest or 'not there'}, not {expected}"]
    for problem in problems:
        print(problem)
    if problems:
        raise ModelFileError(f"{path}: {len(problems)} problem(s)")
    print(f"{path}: all fields, sizes and checksums are right")
    if digest:
        print(f"SHA-256 of its table of parts, which has those of all parts: {digest}")


def _other_content(path: Path) -> list[str]:
    """The parts whose bytes have another SHA-256 than when they were exported."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if PARTS not in entries:
            return []
        problems = []
        for name, part in json.loads(archive.read(entries[PARTS]))["parts"].items():
            with archive.open(entries[name]) as content:
                # zipfile's type has no readinto, its objects do.
                digest = hashlib.file_digest(content, "sha256")  # type: ignore[arg-type]
                if digest.hexdigest() != part["sha256"]:
                    problems.append(f"{name}: it has another SHA-256 than when it was exported")
        return problems


def _digest_of_table(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.partition("/")[2] == PARTS:
                return hashlib.sha256(archive.read(entry)).hexdigest()
    return ""
