"""Any bytes are an n-best document or a lattice file, or a ValueError that says what is wrong.

    python tests/fuzz/readers_fuzzer.py nbest|lattice [libFuzzer's options] CORPUS...

By atheris, libFuzzer for Python. The first line of an input is the name of its file, as formats are
told by names too; the rest is what stands in it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lmfusion.nbest", "lmfusion.lattice"]):
    from lmfusion import lattice, nbest

# What is no suffix of these is a text.
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".trn", ".lab", ".mlf", ".slf", ".lat", ".fst",
            ".gz", ".parquet")
FOLDER = Path(tempfile.mkdtemp(prefix="lmfusion_readers_fuzzer", dir=(
    "/dev/shm" if os.path.isdir("/dev/shm") else None)))


def read_nbest(path: Path) -> None:
    for utterance in nbest.read(path):
        for one in utterance.hypotheses:
            assert isinstance(one.text, str)


def read_lattice(path: Path) -> None:
    for graph in lattice.read_all(path):
        assert graph.order


READERS = {"nbest": read_nbest, "lattice": read_lattice}


def read_with(read: Callable[[Path], None]) -> None:
    """As libFuzzer calls it, for ever."""

    def one(data: bytes) -> None:
        name, _, content = data.partition(b"\n")
        suffix = Path(name.decode(errors="replace")).suffix
        path = FOLDER / f"input{suffix if suffix in SUFFIXES else '.txt'}"
        path.write_bytes(content)
        try:
            read(path)
        except (ValueError, OSError):  # OSError: what is no gzip file
            pass
        finally:
            path.unlink()

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    read_with(READERS[sys.argv[1]])
