"""Who may call: tokens, and the namespace of the cache that each of them works in."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Access:
    """Bearer tokens, compared in constant time.

    Args:
        tokens: token -> name. What one name has computed is never seen by another, not even by
            its time; tokens of one name share it. No tokens: everybody may call, as "".

    Raises:
        ValueError: a name or a token cannot be one.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        for token, name in tokens.items():
            if not token or not token.isascii() or not token.isprintable() or " " in token:
                raise ValueError(f"the token of {name!r} is empty or has characters that a header "
                                 "cannot hold; printable ASCII without spaces expected")
            if not _NAME.fullmatch(name):
                raise ValueError("the name of a token may have letters, digits and _ . - only")
        self._names = [(_digest(token.encode()), name) for token, name in tokens.items()]

    def __bool__(self) -> bool:
        return bool(self._names)

    def name(self, authorization: str | None) -> str | None:
        """Whose header this is; None: nobody's."""
        if not self._names:
            return ""
        scheme, _, token = (authorization or "").partition(" ")
        given = _digest(token.strip().encode("latin-1", "replace"))
        found = None
        for digest, name in self._names:  # all of them, so that the time says nothing
            if hmac.compare_digest(digest, given):
                found = name
        return found if scheme.lower() == "bearer" else None


def cache_namespace(name: str, asked: str) -> str:
    """The scorer's namespace of a call; names hold no slash, so two of them never meet."""
    return f"{name}/{asked}" if name else asked


def read_tokens(path: Path) -> dict[str, str]:
    """token -> name of a file with a line "NAME TOKEN" each; lines of # are comments.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is no such line (its number is named, never its text).
    """
    tokens: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        if len(parts) != 2 or parts[1] in tokens:
            raise ValueError(f"{path}, line {number}: a name and a token of its own expected, "
                             'as in "decoder 4f1c..."')
        tokens[parts[1]] = parts[0]
    if not tokens:
        raise ValueError(f"{path} holds no token; a line for each is a name and the token")
    return tokens


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
