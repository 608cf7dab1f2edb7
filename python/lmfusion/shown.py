"""What an error shows of something that was found where a number or a name was expected. It may be
a text of a call or a file, which no error shows."""

from __future__ import annotations

import re
from typing import Any

_NUMBER_LIKE = re.compile(r"[-+.,eE\d]{0,24}")


def shown(value: Any) -> str:
    """A text that is spelt like a number as it is, of another its length; of the rest the type."""
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    if not _NUMBER_LIKE.fullmatch(value):
        return f"a text of {len(value)} letters"
    return value if value.isdigit() else repr(value)


def number_of(field: str, where: str) -> float:
    """The number that a field of a file spells.

    Raises:
        ValueError: it spells none.
    """
    try:
        return float(field)
    except ValueError:
        raise ValueError(f"{where}: {shown(field)} where a number is expected") from None
