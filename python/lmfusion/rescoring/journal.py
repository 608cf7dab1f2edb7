"""What of a shard is done: a file beside the output, a line a call of the model.

The first line says which job it is. A line that was not written whole (a kill, a full disk) is cut
off when the file is opened again; everything before it counts. Lines are flushed to the disk.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a job, `number` from 1; every utterance is in one of them."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"shard {self.number}/{self.count}; I/N with 1 <= I <= N expected")

    @classmethod
    def of(cls, text: str) -> Shard:
        """Of "I/N"."""
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal()):
            raise ValueError(f"shard {text!r}; I/N with 1 <= I <= N expected, as in 2/8")
        return cls(int(number), int(count))

    def range(self, utterances: int) -> range:
        """Its utterances, by number."""
        return range(utterances * (self.number - 1) // self.count,
                     utterances * self.number // self.count)

    def journal(self, output: Path) -> Path:
        """The path of its journal."""
        return output.with_name(f"{output.name}.shard-{self.number}-of-{self.count}.journal")


class Journal:
    """The journal of one shard, open for more.

    Attributes:
        done: utterances whose log p are in it.
    """

    def __init__(self, path: Path, job: dict[str, Any]) -> None:
        """Opens it; begins it where it is not there.

        Args:
            job: what the log p depend on.

        Raises:
            ValueError: it has log p of another job, or another process is at work on it.
        """
        self.path = path
        self.done = 0
        self._file = path.open("ab+")
        try:
            self._begin(job)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, job: dict[str, Any]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.path}: another process is at work on this shard") from None
        whole = begun = 0  # bytes
        first: dict[str, Any] | None = None
        self._file.seek(0)
        for line in self._file:
            entry = _entry(line)
            if entry is None:
                break
            if first is None:
                first, begun = entry, len(line)
            else:
                self.done += len(entry["log_probs"])
            whole += len(line)
        if first is not None and (other := _other_job(first, job)):
            if whole > begun:
                raise ValueError(f"{self.path} is of a job with another {other}; give the same as "
                                 "then, or remove it to begin anew")
            whole = 0  # it ended before its first call: nothing is lost
        self._file.truncate(whole)
        if whole == 0:
            self._write(job)

    def add(self, log_probs: Sequence[Sequence[float | None]]) -> None:
        """The next utterances' log p of every hypothesis, nats; None: it was not needed."""
        self._write({"log_probs": [list(row) for row in log_probs]})
        self.done += len(log_probs)

    def close(self) -> None:
        self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def done_in(path: Path, job: dict[str, Any]) -> int:
    """Utterances in a journal; 0 where it is not there or of another job."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        first = _entry(file.readline())
        if first is None or _other_job(first, job):
            return 0
        return sum(len(entry["log_probs"]) for entry in map(_entry, file) if entry is not None)


def log_probs_in(path: Path) -> Iterator[list[float]]:
    """Of every utterance, NaN for None; a line of the file in memory at a time."""
    with path.open("rb") as file:
        file.readline()
        for line in file:
            entry = _entry(line)
            for row in entry["log_probs"] if entry is not None else ():
                yield [math.nan if log_prob is None else log_prob for log_prob in row]


def _entry(line: bytes) -> dict[str, Any] | None:
    """Of a whole line."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _other_job(found: dict[str, Any], job: dict[str, Any]) -> str:
    """What makes them two jobs; empty where they are one."""
    wanted = json.loads(json.dumps(job))
    other = [name for name in wanted if found.get(name) != wanted[name]]
    return ", ".join(other) or ("" if set(found) == set(wanted) else "format")
