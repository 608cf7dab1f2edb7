"""A truecaser inside a model file does what the same file beside it does."""

from __future__ import annotations

from pathlib import Path

import lmfusion
import pytest
import tiny_models
from lmfusion.cli import main
from lmfusion.errors import ModelFileError
from lmfusion.exporter import export, export_folder
from lmfusion.exporter.truecaser import export_truecaser

CONTEXTS = ["the man in", "you and"]
WORDS = [["london", "the"], ["anna", "london"]]


@pytest.fixture(scope="module")
def truecaser(tmp_path_factory) -> Path:
    """Of 200,000 words, more than 10 MB."""
    known = {"the": 9, "man": 5, "in": 9, "and": 9, "you": 9, "London": 4, "Anna": 3}
    counts = known | {f"{'x' * 40}{i:06}": 1 for i in range(200_000)}
    path = export_truecaser(
        tmp_path_factory.mktemp("truecaser") / "words.truecaser",
        {"uni_dist": counts, "backward_bi_dist": {}, "forward_bi_dist": {}, "trigram_dist": {},
         "word_casing_lookup": {form.lower(): {form} for form in counts}})
    assert path.stat().st_size > 10_000_000
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny_models.build(tiny_models.TREE_CONFIGS["llama"]()).save_pretrained(path)
    tiny_models.tiny_tokenizer(adds_bos=True).save_pretrained(path)
    return path


@pytest.mark.parametrize("casing", ["truecase", "truecase-compat"])
def test_needs_no_file_beside_it(folder: Path, truecaser: Path, tmp_path: Path,
                                 casing: str) -> None:
    bare = export_folder(folder, tmp_path / "bare.lmf")
    assert main(["export", str(folder), "-o", str(tmp_path / "whole.lmf"),
                 "--truecaser", str(truecaser)]) == 0
    with pytest.raises(ValueError, match="truecaser"):
        lmfusion.LMFusionScorer(bare, casing=casing)
    scorer = lmfusion.LMFusionScorer(tmp_path / "whole.lmf", casing=casing)
    scores = scorer.log_probs(CONTEXTS, WORDS)
    assert scores == lmfusion.LMFusionScorer(bare, casing=casing, truecaser=truecaser).log_probs(
        CONTEXTS, WORDS)
    # The words as this truecaser writes them.
    cased = lmfusion.LMFusionScorer(bare).log_probs(
        ["The man in", "You and"], [["London", "the"], ["Anna", "London"]])
    assert scores == [pytest.approx(row, abs=1e-4) for row in cased]


def test_the_plain_form_has_one_too(folder: Path, truecaser: Path, tmp_path: Path) -> None:
    path = export_folder(folder, tmp_path / "plain.lmf", truecaser=truecaser, uncached=True)
    scorer = lmfusion.LMFusionScorer(path, casing="truecase")
    assert scorer.explain("in", "london").text == "In London"


def test_refuses_what_is_no_truecaser(truecaser: Path, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    cut = tmp_path / "cut.truecaser"
    cut.write_bytes(truecaser.read_bytes()[:-8])
    with pytest.raises(ModelFileError):
        export(model, None, tmp_path / "model.lmf", truecaser=cut)
    with pytest.raises(FileNotFoundError):
        export(model, None, tmp_path / "model.lmf", truecaser=tmp_path / "nowhere")
    assert not (tmp_path / "model.lmf").exists()
