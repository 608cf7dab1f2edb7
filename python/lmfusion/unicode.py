"""Python strings that are no text: lone surrogates, which UTF-8 cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lmfusion.errors import TextError


def called(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls the core; where it could not read a string, says which and why.

    Raises:
        TextError: a string has a lone surrogate.
    """
    try:
        return function(*arguments)
    except TypeError as error:
        for i, argument in enumerate(arguments):
            found = _lone_surrogate(argument, f"argument {i + 1}")
            if found is not None:
                raise TextError(found) from error
        raise


def _lone_surrogate(value: object, where: str) -> str | None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return (f"{where} is not valid Unicode: a lone surrogate "
                    f"U+{ord(value[error.start]):04X} at character {error.start}")
        return None
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            found = _lone_surrogate(item, f"{where}[{i}]")
            if found is not None:
                return found
    return None
