"""Fixtures of the files that test what is built on a scorer: import them by name."""

from __future__ import annotations

from pathlib import Path

import lmfusion
import pytest
import tiny_models
from lmfusion.export import export
from test_scorer import Oracle


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(tiny_models.build(tiny_models.TREE_CONFIGS["llama"]()),
                  tiny_models.tiny_tokenizer(), 1)


@pytest.fixture(scope="module")
def bundle(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(oracle.model, oracle.tokenizer, tmp_path_factory.mktemp("tiny") / "tiny.lmf")


@pytest.fixture
def scorer(bundle: Path) -> lmfusion.LMFusionScorer:
    return lmfusion.LMFusionScorer(bundle, weight=0.5, word_insertion_bonus=1.0)
