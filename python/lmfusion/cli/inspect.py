"""`lmfusion inspect`: what a model file says of itself, and whether it is right."""

from __future__ import annotations

import argparse
import hashlib
import json
import zipfile
from pathlib import Path

from lmfusion import _core
from lmfusion.errors import ModelFileError
from lmfusion.memory import memory_table, read_model

PARTS = "extra/lmfusion.parts.json"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser("inspect", help="print the description in a model file, JSON")
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--plan", nargs="*", type=_setting, metavar="NAME=NUMBER",
                        help="print the memory that contexts=N texts of tokens=N tokens take, in "
                             "every type (default: contexts=50 tokens=100), instead")
    parser.add_argument("--verify", action="store_true",
                        help="check every field, size and checksum, print what is wrong, and the "
                             "SHA-256 that identifies the file's whole content, instead")
    parser.set_defaults(run=run, extra="export")


def run(arguments: argparse.Namespace) -> None:
    """Prints the description, the memory plan, or what is wrong.

    Raises:
        ModelFileError: it is not a model file, a plain TorchScript one without a description, or
            not right.
    """
    path: Path = arguments.model
    if arguments.verify:
        _verify(path)
    elif arguments.plan is not None:
        description, parameters = read_model(path)
        print(memory_table(description, **dict(arguments.plan), parameters=parameters))
    else:
        print(_core.read_description(str(path)))


def _setting(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in ("contexts", "tokens") or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text}: contexts=N or tokens=N expected")
    return name, int(number)


def _verify(path: Path) -> None:
    problems = _core.verify_model_file(str(path)) or _other_content(path)
    for problem in problems:
        print(problem)
    if problems:
        raise ModelFileError(f"{path}: {len(problems)} problem(s)")
    print(f"{path}: all fields, sizes and checksums are right")
    digest = _digest_of_table(path)
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
