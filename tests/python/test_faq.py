"""The errors of docs/faq.md are those that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lmfusion import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
# Of every error that a question quotes, the words that the code itself has.
QUOTED = (
    "compiled core cannot be loaded", "export the model again", "does not fit kv_cache_bytes",
    "that is not finite (NaN or infinity)", "is not available", "and this is torch",
    "built with torch", "has no config.json", "is no n-best file of a known shape",
    "is one hypothesis", "has no references beside its hypotheses", "no score",
    'give it one, or missing="last" to put such hypotheses last', "requests are waiting",
    "is the service there")


def strings(path: Path) -> str:
    """What is in a source with its adjacent string literals joined."""
    return re.sub(r"""["']\s*\n\s*f?["']""", "", path.read_text(encoding="utf-8"))


SOURCES = "\n".join(strings(path) for folder, kind in (("python/lmfusion", "py"), ("src", "cpp"))
                    for path in sorted((ROOT / folder).rglob(f"*.{kind}")))


@pytest.mark.parametrize("message", QUOTED)
def test_the_code_and_the_page_have_the_message(message: str) -> None:
    assert message in " ".join(PAGE.split())
    assert message in SOURCES


def test_the_page_names_errors_that_there_are() -> None:
    named = set(re.findall(r"\b([A-Z][A-Za-z]+Error)\b", PAGE)) - {"ImportError"}
    assert named and named <= set(dir(errors))
