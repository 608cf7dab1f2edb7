"""What opening a model takes in memory at its peak: never two copies of the weights."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch

MEASURE = """
import json, sys
import lmfusion
from opened_models import forget_peak, memory

small, model, compute = sys.argv[1:]
lmfusion.LMFusionScorer(small, compute=compute).score_token_paths([[1, 5, 7]], [1])
forget_peak()
before = memory("VmRSS")
scorer = lmfusion.LMFusionScorer(model, compute=compute)
peak = memory("VmHWM") - before
print(json.dumps({"peak": peak, "weights": scorer.stats().weight_bytes,
                  "scores": scorer.score_token_paths([[1, 5, 7, 11, 13]], [1])[0]}))
"""


def export(folder: Path, layers: int) -> Path:
    model = tiny_models.llama_to_weigh(layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return lmfusion.export(model, None, folder / f"{layers}.lmf")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small model and one of some 56 MB, in bfloat16."""
    folder = tmp_path_factory.mktemp("models")
    return export(folder, 1), export(folder, 8)


def measured(small: Path, model: Path, compute: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", MEASURE, small, model, compute],
                          cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def unaligned(path: Path, target: Path) -> Path:
    """The same parts, one behind the other without padding."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for entry in source.infolist():
            compressed = zipfile.ZipInfo(entry.filename)
            compressed.compress_type = entry.compress_type
            copy.writestr(compressed, source.read(entry))
    return target


@pytest.mark.parametrize("compute", ["bfloat16", "int8"])
def test_no_second_copy_of_the_weights_is_in_memory(models: tuple[Path, Path],
                                                    compute: str) -> None:
    found = measured(*models, compute)
    stored = models[1].stat().st_size
    # What is kept, and what torch and the scorer take beside it.
    assert found["weights"] > 0.9 * (stored if compute == "bfloat16" else stored / 2)
    assert found["peak"] - found["weights"] < stored / 4


def test_a_file_whose_parts_are_not_aligned_is_read(models: tuple[Path, Path],
                                                    tmp_path: Path) -> None:
    small, model = models
    copied = unaligned(model, tmp_path / "unaligned.lmf")
    assert (measured(small, copied, "int8")["scores"]
            == measured(small, model, "int8")["scores"])


def test_weights_stay_when_the_file_is_overwritten(models: tuple[Path, Path],
                                                   tmp_path: Path) -> None:
    """After loading nothing is read from the file: whoever writes into it changes no score."""
    path = tmp_path / "overwritten.lmf"
    path.write_bytes(models[1].read_bytes())
    scorer = lmfusion.LMFusionScorer(path)
    paths = [[1, 5, 7, 11, 13]]
    before = scorer.score_token_paths(paths, [1])
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    scorer.clear_cache()
    assert scorer.score_token_paths(paths, [1]) == before
