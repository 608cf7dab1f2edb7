"""What an export takes in memory at its peak: the weights in float32 once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import torch

MEASURE = """
import json, sys, threading
import lmfusion
from opened_models import memory

small, folder, target = sys.argv[1:]
lmfusion.export_folder(small, target, tokenizer=False)
before = memory("RssAnon")
peak, done = before, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, memory("RssAnon"))

watcher = threading.Thread(target=watch)
watcher.start()
lmfusion.export_folder(folder, target, tokenizer=False)
done.set()
watcher.join()
print(json.dumps(peak - before))
"""


def folder_of(path: Path, layers: int) -> tuple[Path, int]:
    """A model in bfloat16, as most are published, and its weights' bytes in float32."""
    model = tiny_models.llama_to_weigh(layers).to(torch.bfloat16)
    model.save_pretrained(path)
    return path, 4 * sum(parameter.numel() for parameter in model.parameters())


def test_an_export_holds_the_weights_once(tmp_path: Path) -> None:
    """Beside the largest stack of them, and what torch takes for itself. Pages of the files that
    are read do not count: the system takes them back where it needs them."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    small, _ = folder_of(tmp_path / "small", 1)
    folder, size = folder_of(tmp_path / "model", 12)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, small, folder, tmp_path / "model.lmf"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
        # What is freed goes back to the system at once, and is not counted.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    peak = json.loads(done.stdout.splitlines()[-1])
    assert 0.9 * size < peak < 1.6 * size
