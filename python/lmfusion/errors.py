"""One type per kind of mistake; every message says what was wrong, where, and what to do.

Arguments that cannot be right are ValueError. The other types are the core's (see
include/lmfusion/errors.h); after any of them a scorer works on.
"""

from __future__ import annotations

from lmfusion._core import (
    CacheBudgetError,
    CacheFileError,
    Error,
    ModelFileError,
    NumericalError,
    TextError,
    TokenizerError,
)

__all__ = ["CacheBudgetError", "CacheFileError", "Error", "ExportError", "ModelFileError",
           "NumericalError", "TextError", "TokenizerError"]


class ExportError(RuntimeError):
    """A model cannot be exported exactly; the text says why and what can be done."""
