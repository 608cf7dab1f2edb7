"""Links of docs/ to files outside of it become their names on the site, which has no such files."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for every page; those of a folder link to docs/ itself by ../."""
    return markdown if "/" in page.file.src_uri else OUTSIDE.sub(r"\1", markdown)
