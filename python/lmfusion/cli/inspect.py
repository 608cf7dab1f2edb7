"""`lmfusion inspect`: what a model file says of itself."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

from lmfusion.memory_plan import memory_table, read_model

DESCRIPTION = "extra/lmfusion.json"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser("inspect", help="print the description in a model file, JSON")
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--plan", nargs="*", type=_setting, metavar="NAME=NUMBER",
                        help="print the memory that contexts=N texts of tokens=N tokens take, in "
                             "every type (default: contexts=50 tokens=100), instead")
    parser.set_defaults(run=run, extra="export")


def run(arguments: argparse.Namespace) -> None:
    """Prints the description, or the memory plan."""
    if arguments.plan is not None:
        description, parameters = read_model(arguments.model)
        print(memory_table(description, **dict(arguments.plan), parameters=parameters))
        return
    print(read_description(arguments.model))


def _setting(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in ("contexts", "tokens") or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text}: contexts=N or tokens=N expected")
    return name, int(number)


def read_description(path: Path) -> str:
    """`lmfusion.json` of a model file, without loading the model.

    Raises:
        ValueError: it is not a model file, or a plain TorchScript one without a description.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(f"/{DESCRIPTION}"):
                    return archive.read(name).decode()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a model file: {error}") from error
    raise ValueError(f"{path} holds no lmfusion.json. A plain TorchScript model has none; it is "
                     "scored without a cache")
