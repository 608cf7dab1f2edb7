"""The documents: fenced Python snippets run, links lead somewhere, the site builds strictly."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import lmfusion
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r"(?:<!-- fragment: (?P<reason>.+?) -->\n)?^```python\n(?P<code>.*?)^```$",
                     re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")
WITH_SNIPPETS = [page for page in PAGES if SNIPPET.search(page.read_text(encoding="utf-8"))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=name)
def test_snippets_run(page: Path, default_model: Path, tmp_path: Path,
                      monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, with what pages take for granted: a scorer, its model, some words."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    scope = {"lmfusion": lmfusion, "model": default_model, "words": ["tea", "coffee"],
             "scorer": lmfusion.LMFusionScorer(default_model, casing="sentence")}
    for snippet in SNIPPET.finditer(text):
        if not snippet["reason"]:
            line = text[:snippet.start("code")].count("\n")
            code = "\n" * line + snippet["code"]  # so that errors name the page's lines
            exec(compile(code, str(page), "exec"), scope)
    if page.name == "README.md":
        printed = capsys.readouterr().out
        shown = text.split("```\n")[2]
        assert [line.split()[:-1] for line in printed.splitlines()][-1:] == [
            line.split()[:-1] for line in shown.splitlines()][-1:]
        for one, other in zip(printed.splitlines()[:-1], shown.splitlines()[:-1], strict=True):
            assert one.split()[1:] == other.split()[1:]
            assert float(one.split()[0]) == pytest.approx(float(other.split()[0]), abs=2e-3)


def test_the_readme_is_short_and_shows_the_demo() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert text.count("\n") < 150 and "](docs/demo.png)" in text


def test_the_pattern_finds_what_it_should() -> None:
    found = SNIPPET.findall("a\n```python\nx = 1\n```\n<!-- fragment: why -->\n```python\ny\n```\n")
    assert found == [("", "x = 1\n"), ("why", "y\n")]
    assert len(WITH_SNIPPETS) >= 8


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{name(page)} links to {link}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir",
                           str(tmp_path / "site")], cwd=ROOT, text=True, capture_output=True,
                          check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site" / "python" / "index.html").read_text(encoding="utf-8")
    for method in ("score_continuations", "token_log_probs", "save_cache"):
        assert f"LMFusionScorer.{method}" in page
    assert "Client.score_texts" in page
