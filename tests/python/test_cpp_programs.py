"""C++ programs that find the installed library with CMake and link nothing of Python."""

from __future__ import annotations

import math
import os
import re
import subprocess
from pathlib import Path

import lmfusion
import pytest
import tiny_models
from lmfusion.export import export

ROOT = Path(__file__).parents[2]


def run(*command: object) -> str:
    result = subprocess.run([str(part) for part in command], text=True, capture_output=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the build folder ($LMFUSION_BUILD, or build), installed."""
    build = Path(os.environ.get("LMFUSION_BUILD") or ROOT / "build")
    if not (build / "cmake_install.cmake").exists():
        pytest.skip(f"{build} is no build folder; set LMFUSION_BUILD")
    folder = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", build, "--prefix", folder, "--component", "development")
    return folder


def built(source: Path, prefix: Path, folder: Path, *options: str) -> Path:
    run("cmake", "-S", source, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}", *options)
    run("cmake", "--build", folder)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    return export(model, tiny_models.tiny_tokenizer(),
                  tmp_path_factory.mktemp("programs") / "tiny.lmf")


def test_states_and_flashlight_equal_python(prefix: Path, bundle: Path, tmp_path: Path) -> None:
    real = os.environ.get("FLASHLIGHT_TEXT_INCLUDE")  # else the protocol copy of the tests
    options = [f"-DFLASHLIGHT_TEXT_INCLUDE={real}"] if real else []
    program = built(ROOT / "tests" / "programs", prefix, tmp_path, *options) / "states"
    found = {name: float(value) for name, value in map(str.split, run(program, bundle).splitlines())}

    states = lmfusion.StateScorer(lmfusion.LMFusionScorer(bundle))
    the_state = states.start("the")
    the, cat = states.score(states.start(), "the")[0], states.score(the_state, "cat")[0]
    finish = states.finish(states.start("the cat"))
    wanted = {
        "the": the, "cat": cat, "finish": finish, "same": 1, "distinct": 2, "batch_calls": 1,
        "batch_cat": cat, "batch_sand": states.score(states.start(), "sand")[0],
        "batch_the_sand": states.score(the_state, "sand")[0], "fl_the": the, "fl_cat": cat,
        "fl_finish": finish, "fl_interned": 1, "fl_unknown": 0, "fl_unknown_finish": finish,
        "fl_update_calls": 1, "fl_refuses_old_states": 1, "floored": -math.inf,
        "not_floored": cat, "late": math.nan}
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, abs=1e-4, nan_ok=True)


def test_the_cpp_decoder_needs_its_language_model(prefix: Path, default_model: Path,
                                                  tmp_path: Path) -> None:
    example = ROOT / "examples" / "cpp_decoder"
    program = built(example, prefix, tmp_path) / "cpp_decoder"
    assert "libpython" not in run("ldd", program)
    data = ROOT / "examples" / "data"
    output = run(program, default_model, data / "lexicon.txt", data / "sentences.txt", 4)
    without, with_lm = map(float, re.findall(r"language model: ([\d.]+)", output))
    assert without > 0.25
    assert with_lm < 0.6 * without
