"""One type per kind of mistake; every message says what was wrong, where, and what to do.

Arguments that cannot be right are ValueError. The other types are the core's (see
include/lmfusion/errors.h); after any of them a scorer works on.
"""

from __future__ import annotations

from typing import Any

from lmfusion._core import (
    CacheBudgetError,
    CacheFileError,
    Error,
    ModelFileError,
    NumericalError,
    TextError,
    TokenizerError,
)

__all__ = ["CacheBudgetError", "CacheFileError", "CalibrationError", "Error", "ExportError",
           "LatticeError", "ModelFileError", "NumericalError", "ServiceError", "TextError",
           "TokenizerError"]


class CalibrationError(ValueError):
    """A margin cannot be measured, or was measured for something else; the text says what."""


class ExportError(RuntimeError):
    """A model cannot be exported exactly; the text says why and what can be done."""


class LatticeError(ValueError):
    """A lattice cannot be searched, or its file not be read; the text says what is wrong where."""


class ServiceError(Error):
    """A service did not answer a call of `lmfusion.Client`; the text says why.

    Attributes:
        status: of HTTP; None where no answer came.
        result: what the call would have returned, with None in the place of every row that was
            not scored; None where nothing was.
    """

    def __init__(self, message: str, *, status: int | None = None, result: Any = None) -> None:
        super().__init__(message)
        self.status, self.result = status, result
