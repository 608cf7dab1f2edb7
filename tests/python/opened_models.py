"""Opens model files in a process of its own, which tells what happened and what it took."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lmfusion import LMFusionScorer

PATHS = [[1, 5, 9, 200, 31], [1, 5, 9, 17], [1, 8]]
TOLERANCE = 1e-4  # nats per token
MORE_MEMORY = 16 << 20  # bytes beside what the right file takes and twice the file

Case = tuple[str, Path]


def memory(name: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def expected(model: torch.nn.Module) -> list[list[float]]:
    with torch.no_grad():
        return [model(input_ids=torch.tensor([path])).logits[0].log_softmax(-1)[:-1]
                .gather(1, torch.tensor(path[1:])[:, None])[:, 0].tolist() for path in PATHS]


def outcome(path: str, device: str, wanted: list[list[float]]) -> str:
    """What a scorer of this file does: "ModelFileError: ...", "right", or something worse."""
    try:
        scorer = LMFusionScorer(path, device=device, kv_cache_bytes=1 << 20)
        got = scorer.score_token_paths(PATHS, [1] * len(PATHS))
        scorer.score_continuations(["the"], [["the", "you"]])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    same = all(abs(a - b) <= TOLERANCE for row, other in zip(wanted, got, strict=True)
               for a, b in zip(row, other, strict=True))
    return "right" if same else "wrong scores"


def answer_lines() -> None:
    """The other process: a line a file in, a line an outcome out."""
    torch.set_num_threads(1)
    wanted = json.loads(sys.stdin.readline())
    for line in sys.stdin:
        path, device = json.loads(line)
        forget_peak()
        before = memory("VmRSS")
        result = outcome(path, device, wanted)
        print(json.dumps([result, memory("VmHWM") - before]), flush=True)


def outcomes(model: torch.nn.Module, bundle: Path, cases: Iterator[Case],
             device: str) -> dict[str, str]:
    """Case -> what happened; fails where the process ends or takes too much memory."""
    results = {}
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(expected(model)) + "\n")
        right = 0
        # The first opening makes what stays: threads, torch's own tables.
        rights = [("the first file", bundle), ("the right file", bundle)]
        for name, path in itertools.chain(rights, cases):
            process.stdin.write(json.dumps([str(path), device]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, f"{name}: the process ended"
            results[name], more = json.loads(answer)
            right = more if name == "the right file" else right
            most = right + 2 * path.stat().st_size + MORE_MEMORY
            assert more < most or name == "the first file", f"{name}: {more} bytes"
    assert process.returncode == 0
    assert results.pop("the first file") == results.pop("the right file") == "right"
    return results


def check(results: dict[str, str], harmless: Callable[[str], bool] = lambda name: True) -> None:
    """Every file is refused as a model file, or as right as before."""
    bad = {name: result for name, result in results.items()
           if not result.startswith("ModelFileError: ")
           and not (result == "right" and harmless(name))}
    assert not bad, json.dumps(bad, indent=1)
    for name, result in results.items():  # nothing of torch's, which would be long
        assert "\n" not in result and "c10" not in result and len(result) < 1200, (name, result)


if __name__ == "__main__":
    answer_lines()
