"""What both ends write and read: exact numbers, and errors by their names.

JSON has no NaN and no infinity, so these are the strings "NaN", "Infinity" and "-Infinity"; null is
what was not scored. All other numbers are written with as many digits as bring the same float64
back.
"""

from __future__ import annotations

import json
import math
from typing import Any

from lmfusion import errors

# Status of an answer, by the error that the scorer raised; the first that fits.
STATUS_OF_ERROR: tuple[tuple[type[Exception], int], ...] = (
    (errors.TextError, 400), (ValueError, 400), (TypeError, 400),
    (errors.CacheBudgetError, 422), (errors.NumericalError, 500), (errors.Error, 500),
    (MemoryError, 503))

_RAISED_AGAIN: dict[str, type[Exception]] = {
    error.__name__: error for error in (
        errors.CacheBudgetError, errors.NumericalError, errors.TextError, errors.Error, ValueError,
        TypeError, MemoryError)}


def to_json(value: Any) -> bytes:
    """Strict JSON of lists, mappings, texts and numbers."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:  # a number that JSON does not have
        return json.dumps(_spelled(value), allow_nan=False, separators=(",", ":")).encode()


def _spelled(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: _spelled(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_spelled(each) for each in value]
    return value


def number(value: float | str | None) -> float:
    """A number that `to_json` wrote; NaN for null."""
    return math.nan if value is None else float(value)


def status_of(error: Exception) -> int:
    """The HTTP status of what a call raised; 500 for what nobody expected."""
    return next((status for kind, status in STATUS_OF_ERROR if isinstance(error, kind)), 500)


def error_document(kind: str, message: str, status: int) -> bytes:
    """The body of every answer that is no success, as OpenAI's clients expect it too."""
    return to_json({"error": {"type": kind, "message": message, "code": status}})


def raised_again(kind: str, message: str) -> Exception | None:
    """The scorer's own error of that name; None for errors of the service itself."""
    error = _RAISED_AGAIN.get(kind)
    return None if error is None else error(message)
