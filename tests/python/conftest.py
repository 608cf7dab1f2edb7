"""Fixtures that several files share. pytest-xdist workers may run any of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread_a_worker() -> None:
    """Two workers on two cores: more threads each would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The SmolLM2-135M-Instruct bundle, built once into $LMFUSION_CACHE for all workers and runs."""
    from lmfusion.default_model import default_model
    return default_model()
