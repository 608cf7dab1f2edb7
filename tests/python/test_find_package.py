"""A program outside finds an installed lmfusion by CMake or pkg-config, and scores a text."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import tiny_models
import torch
from lmfusion import LMFusionScorer
from lmfusion.exporter import export

ROOT = Path(__file__).parents[2]
TEXT = "caf\u00e9 au lait"
TOLERANCE = 1e-4  # nats per token


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation of this build tree."""
    folder = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", build_tree(), "--prefix", folder, "--component", "development")
    return folder


@pytest.fixture(scope="module", params=["find_package", "pkg-config"])
def program(request: pytest.FixtureRequest, prefix: Path,
            tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/cpp, built against the installation."""
    build = tmp_path_factory.mktemp("program")
    example = ROOT / "examples" / "cpp"
    if request.param == "find_package":
        built(example, build, prefix)
        return build / "build" / "score_text"
    [description] = prefix.rglob("lmfusion.pc")
    flags = run("pkg-config", "--cflags", "--libs", description).split()
    run("g++", "-o", build / "score_text", example / "score_text.cpp", *flags)
    return build / "score_text"


def built(source: Path, folder: Path, prefix: Path) -> None:
    run("cmake", "-S", source, "-B", folder / "build", "-G", "Ninja",
        f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", folder / "build")


def build_tree() -> Path:
    build = ROOT / "build"
    assert (build / "CMakeCache.txt").exists(), f"{build} is no build tree: ./run setup makes it"
    return build


def test_outside_project_scores_as_hugging_face(program: Path, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    tokenizer = tiny_models.tiny_tokenizer(adds_bos=True)
    path = export(model, tokenizer, tmp_path / "model.lmf")
    ids = tokenizer(TEXT)["input_ids"]
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    wanted = sum(float(row[token]) for row, token in zip(log_probs, ids[1:]))
    assert float(run(program, path, TEXT)) == pytest.approx(wanted, abs=TOLERANCE * len(ids))


def test_errors_reach_the_outside_project(program: Path, tmp_path: Path) -> None:
    done = subprocess.run([program, tmp_path / "missing.lmf", TEXT], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert "missing.lmf" in done.stderr


def test_the_quickstart_builds_and_scores(prefix: Path, tmp_path: Path, bundle: Path) -> None:
    """The snippets of docs/quickstarts/cpp_decoder.md, as they are."""
    page = (ROOT / "docs" / "quickstarts" / "cpp_decoder.md").read_text(encoding="utf-8")
    snippets = dict(re.findall(r"^```(cmake|cpp)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    (tmp_path / "CMakeLists.txt").write_text(snippets["cmake"])
    (tmp_path / "decoder.cpp").write_text(snippets["cpp"])
    built(tmp_path, tmp_path, prefix)
    scores = run(tmp_path / "build" / "decoder", bundle).split()
    scorer = LMFusionScorer(bundle, weight=0.5)
    [wanted] = scorer.score_continuations(["i would like a cup of"], [["tea", "tee"]])
    assert [float(score) for score in scores] == pytest.approx(wanted, rel=1e-4)
