"""Shapes such as [contexts][candidates] in docstrings are code on the site, not links."""

from __future__ import annotations

import re
from typing import Any

import griffe

SHAPE = re.compile(r"(?<!`)((?:\[[a-z ]+\]){2,})(?!`)")


class Shapes(griffe.Extension):
    """Puts them in backticks."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of every object that has a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = SHAPE.sub(r"`\1`", obj.docstring.value)
