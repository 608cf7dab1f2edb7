"""C++ programs that find the installed library with CMake and link nothing of Python."""

from __future__ import annotations

import math
import os
import re
import subprocess
from pathlib import Path

import lmfusion
import pytest
from oracle import Oracle

ROOT = Path(__file__).parents[2]


def run(*command: object) -> str:
    result = subprocess.run([str(part) for part in command], text=True, capture_output=True,
                            check=False)
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


def values(output: str) -> dict[str, float]:
    """Lines of a name and a number."""
    return {name: float(value) for name, value in map(str.split, output.splitlines())}


def test_the_page_of_adapters_compiles(tmp_path: Path) -> None:
    """Its lines of C++, in a function whose arguments are what a reader has."""
    page = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    [fragment] = re.findall(r"(?<=\n\n)(?:    #include .*\n)+\n(?:    .*\n)+", page)
    lines = [line.strip() for line in fragment.splitlines()]
    includes = [line for line in lines if line.startswith("#include")]
    (tmp_path / "page.cpp").write_text("\n".join([
        *includes, "void Page(fl::lib::text::LexiconDecoderOptions options,",
        "          std::shared_ptr<fl::lib::text::Trie> trie, std::vector<std::string> words,",
        "          int silence, int blank, int unknown) {", *lines[len(includes):], "}", ""]))
    headers = os.environ.get("FLASHLIGHT_TEXT_INCLUDE") or (
        ROOT / "tests" / "programs" / "flashlight_protocol")
    run("g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Werror", "-Wno-unused-variable",
        f"-I{ROOT / 'include'}", f"-I{headers}", tmp_path / "page.cpp")


def test_states_and_flashlight_equal_python(prefix: Path, bundle: Path, tmp_path: Path) -> None:
    real = os.environ.get("FLASHLIGHT_TEXT_INCLUDE")  # else the protocol copy of the tests
    options = [f"-DFLASHLIGHT_TEXT_INCLUDE={real}"] if real else []
    program = built(ROOT / "tests" / "programs", prefix, tmp_path, *options) / "states"
    description = lmfusion.LMFusionScorer(bundle).description
    slot = 4 * (2 * description["layers"] * description["kv_heads"] * description["head_dim"]
                + description["hidden_size"]) + 150  # bytes a token
    found = values(run(program, bundle, 300 * slot))

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
        "not_floored": cat, "late": math.nan, "prefetch_calls": 1, "prefetch_computes": 1,
        "computed_after_prefetch": 0, "live_states": 3600, "evictions": 1, "within_budget": 1,
        "evicted_states_differ_by": 0,
        "moved_from_is_an_error": 1, "moved": the, "moved_states": the, "moved_states_share": 1,
        "destroyed_states": the}
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, abs=1e-4, nan_ok=True)


def test_flashlights_own_decoder(prefix: Path, bundle: Path, oracle: Oracle,
                                 tmp_path: Path) -> None:
    sources = os.environ.get("FLASHLIGHT_TEXT_INCLUDE")
    if not sources:
        pytest.skip("FLASHLIGHT_TEXT_INCLUDE does not name flashlight-text's sources: pip download "
                    "--no-deps --no-binary :all: flashlight-text==0.0.7")
    program = built(ROOT / "tests" / "programs", prefix, tmp_path,
                    f"-DFLASHLIGHT_TEXT_INCLUDE={sources}") / "flashlight_decoder"
    found = values(run(program, bundle))
    counts = {name: found.pop(f"{name}_forwards") for name in ("with", "without")}
    tokens = {name: found.pop(f"{name}_tokens") for name in ("with", "without")}
    # updateCache batches: fewer passes, for at most the states of the last beam in tokens.
    assert counts["with"] < 0.8 * counts["without"] and tokens["with"] < 1.2 * tokens["without"]
    assert "the_cat_sat" in found and len(found) >= 10
    for words, log_prob in found.items():
        text = words.replace("_", " ")
        ends = [oracle.text(text + mark) - oracle.text(text) for mark in ".?!"]
        wanted = oracle.text(text) + math.log(sum(map(math.exp, ends)))
        assert log_prob == pytest.approx(wanted, abs=2e-3), text


def test_the_cpp_decoder_needs_its_language_model(prefix: Path, default_model: Path,
                                                  tmp_path: Path) -> None:
    example = ROOT / "examples" / "cpp_decoder"
    program = built(example, prefix, tmp_path) / "cpp_decoder"
    assert "libpython" not in run("ldd", program)
    data = ROOT / "examples" / "data"
    output = run(program, default_model, data / "lexicon.txt", data / "held_out.txt", 8)
    without, with_lm = map(float, re.findall(r"language model: ([\d.]+)", output))
    assert without > 0.2
    assert with_lm < 0.6 * without
