"""Fixtures that several files share. pytest-xdist workers may run any of them at once."""

from __future__ import annotations

import functools
from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch
from devices import CPU_AND_DEVICES, MakeScorer
from lmfusion.exporter import export
from oracle import Oracle


@pytest.fixture(scope="session", autouse=True)
def one_thread_a_worker() -> None:
    """Two workers on two cores: more threads each would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The SmolLM2-135M-Instruct bundle, built once in $LMFUSION_CACHE for all workers and runs."""
    from lmfusion.default_model import default_model
    return default_model()


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """A tiny Llama with random weights."""
    return Oracle(tiny_models.build(tiny_models.TREE_CONFIGS["llama"]()),
                  tiny_models.tiny_tokenizer(), 1)


@pytest.fixture(scope="session")
def bundle(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The oracle's model, exported."""
    return export(oracle.model, oracle.tokenizer, tmp_path_factory.mktemp("tiny") / "tiny.lmf")


@pytest.fixture(params=CPU_AND_DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Every test that asks for it (or for what is built on it) runs once a device."""
    return request.param


@pytest.fixture
def make_scorer(device: str) -> MakeScorer:
    """LMFusionScorer on each device in turn."""
    return functools.partial(lmfusion.LMFusionScorer, device=device)


@pytest.fixture
def scorer(bundle: Path, make_scorer: MakeScorer) -> lmfusion.LMFusionScorer:
    """One for the oracle's model, on each device in turn."""
    return make_scorer(bundle, weight=0.5, word_insertion_bonus=1.0)
