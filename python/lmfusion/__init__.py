"""lmfusion: exact language-model scores for beam-search decoders.

    import lmfusion
    scorer = lmfusion.LMFusionScorer(lmfusion.default_model(), weight=1.0)
    scorer.score_continuations(["i'd like a cup of"], [["tea", "tee"]])

All log-probabilities are natural logarithms (nats).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import torch as _torch  # its libraries must be there before the core's

    from lmfusion import _core

    _built_with: str = getattr(_core, "torch_version", "")
    if _built_with and _built_with.split(".")[:2] != _torch.__version__.split(".")[:2]:
        raise ImportError(f"built with torch {_built_with}, and this is torch {_torch.__version__}")
except ImportError as error:
    raise ImportError(
        f"lmfusion's compiled core cannot be loaded: {error}. Causes: torch is missing or is not "
        "the version that lmfusion was built with; the package was not built for this Python; or a "
        "shared library that it was built with (libsentencepiece, libpcre2-8, libutf8proc) is no "
        "longer installed. Building it again mends all of them: pip install --no-build-isolation "
        ". in a checkout.") from error

from lmfusion import lattice, nbest
from lmfusion.client import Client
from lmfusion.combined import CombinedScorer
from lmfusion.default_model import default_model
from lmfusion.errors import (
    CacheBudgetError,
    CacheFileError,
    CalibrationError,
    Error,
    ExportError,
    LatticeError,
    ModelFileError,
    NumericalError,
    ServiceError,
    TextError,
    TokenizerError,
)
from lmfusion.hugging_face import from_hf
from lmfusion.memory import memory_plan
from lmfusion.phrases import PhraseList
from lmfusion.scorer import LMFusionScorer
from lmfusion.state import State, StateScorer
from lmfusion.verified import Margin, Verified, calibrate

if TYPE_CHECKING:
    from lmfusion.exporter import export, export_folder

__version__ = _core.__version__

__all__ = ["CacheBudgetError", "CacheFileError", "CalibrationError", "Client", "CombinedScorer",
           "Error", "ExportError", "LMFusionScorer", "LatticeError", "Margin", "ModelFileError",
           "NumericalError", "PhraseList", "ServiceError", "State", "StateScorer", "TextError",
           "TokenizerError", "Verified", "calibrate", "default_model", "export", "export_folder",
           "from_hf", "lattice", "memory_plan", "nbest"]


def __getattr__(name: str) -> object:
    """`export` and `export_folder` need transformers, which scoring does not."""
    if name in ("export", "export_folder"):
        import importlib
        return getattr(importlib.import_module("lmfusion.exporter"), name)
    raise AttributeError(f"module 'lmfusion' has no attribute {name!r}")
