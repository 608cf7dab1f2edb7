"""Self-contained HTML pages: a template of this folder each, filled with facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def write_report(template: str, path: Path, facts: dict[str, Any]) -> None:
    """Writes a page.

    Args:
        template: the name of a file of this folder, in Jinja's language.
        path: of the page; its folder is made.
        facts: what the template names; texts are escaped.
    """
    import jinja2
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(FOLDER), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    page = environment.get_template(template).render(facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
