"""Cache snapshots that are not right: an error that says so, never a crash, nor memory for more
than the file holds; the scorer works on. The files are loaded in a process of its own.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch
from lmfusion.exporter import export
from oracle import Oracle

TEXTS = ["the cat sat on the mat", "i'm on a mat", "the cat naïve", "3 cats"]
COUNT = 1000  # files, half of them with a checksum that fits
MORE_MEMORY = 16 << 20  # bytes beside twice the file: the scorer's own, and the allocator's

Case = tuple[str, bytes]


def answer_lines() -> None:
    """The other process: a snapshot's path a line in, what happened and its peak of memory out."""
    torch.set_num_threads(1)
    bundle, wanted = json.loads(sys.stdin.readline())
    start = None
    for line in sys.stdin:
        scorer = lmfusion.LMFusionScorer(bundle, kv_cache_bytes=1 << 20)
        try:
            scorer.load_cache(json.loads(line))
            result = "loaded"
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        # Another namespace, as nothing protects values whose checksum was made to fit.
        right = scorer.score_texts(TEXTS, cache_namespace="other")
        if max(abs(a - b) for a, b in zip(right, wanted)) > 1e-3:
            result = "wrong afterwards"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        start = peak if start is None else start
        print(json.dumps([result, peak - start]), flush=True)


def signed(content: bytes) -> bytes:
    """With the checksum at its end made to fit."""
    return content[:-4] + zlib.crc32(content[:-4]).to_bytes(4, "little")


def damaged(good: bytes, other: bytes) -> Iterator[Case]:
    draw = random.Random(3)
    yield "of another model", other
    for name, at, value in [("format 99", 8, 99), ("format 0", 8, 0)]:
        yield name, signed(good[:at] + value.to_bytes(4, "little") + good[at + 4:])
    for field in range(12, 48, 4):  # of the header: lengths of what follows
        for value in (0, 1, 255, 2**31 - 1, 2**32 - 1):
            changed = good[:field] + value.to_bytes(4, "little") + good[field + 4:]
            yield f"{value} at {field}", signed(changed)
    for number in range(COUNT):
        content = bytearray(good)
        kind = draw.randrange(5)
        at = draw.randrange(len(content) if kind else 400)
        if kind <= 1:
            content[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del content[at:]
        elif kind == 3:
            to, size = draw.randrange(len(content)), draw.randrange(1, 300)
            content[at:at + size], content[to:to + size] = (
                content[to:to + size], content[at:at + size])
        else:
            content[at:at] = draw.randbytes(draw.randrange(1, 5000))
        changed = bytes(content)
        name = f"{('header', 'bit', 'cut', 'swap', 'longer')[kind]} {at}"
        yield (f"{name}, signed", signed(changed)) if number % 2 and len(changed) > 4 else (
            name, changed)


@pytest.fixture
def snapshots(bundle: Path, oracle: Oracle, tmp_path: Path) -> tuple[bytes, bytes]:
    """A right one, and one of another model."""
    other = export(tiny_models.build(tiny_models.TREE_CONFIGS["llama"](), seed=9),
                   oracle.tokenizer, tmp_path / "other.lmf")
    contents = []
    for path in (bundle, other):
        scorer = lmfusion.LMFusionScorer(path)
        scorer.score_texts(TEXTS)
        scorer.save_cache(tmp_path / "some.cache")
        contents.append((tmp_path / "some.cache").read_bytes())
    return contents[0], contents[1]


def test_damaged_snapshots(bundle: Path, oracle: Oracle, snapshots: tuple[bytes, bytes],
                           tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    good, other = snapshots
    path = tmp_path / "damaged.cache"
    files, largest = 0, 0
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([str(bundle), [oracle.text(text) for text in TEXTS]]) + "\n")
        for name, content in [("right", good), *damaged(good, other)]:
            path.write_bytes(content)
            process.stdin.write(json.dumps(str(path)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, f"{name}: the process ended"
            result, more = json.loads(answer)
            may_load = name == "right" or "signed" in name or " at " in name or content == good
            assert result.startswith(("CacheFileError: ", "CacheBudgetError: ")) or (
                result == "loaded" and may_load), (name, result)
            assert more < 2 * len(content) + MORE_MEMORY, (name, more)
            assert name != "right" or result == "loaded"
            files, largest = files + 1, max(largest, more)
    assert process.returncode == 0
    record_property("damaged files", files - 1)
    record_property("largest memory beside the right file's, MB", largest / 1e6)


if __name__ == "__main__":
    answer_lines()
