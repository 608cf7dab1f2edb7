"""The notebook runs, and says what is stored in it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebook" / "better_word_error_rate.ipynb"
_NUMBER = re.compile(r"[-+]?\d[\d,.]*(?:e[-+]\d+)?")


def printed(notebook: dict[str, list[dict[str, list[dict[str, object]]]]]) -> list[str]:
    return ["".join(output["text"]) for cell in notebook["cells"]  # type: ignore[arg-type]
            for output in cell.get("outputs", []) if output["output_type"] == "stream"]


def test_the_notebook_runs_and_prints_what_it_holds(default_model: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    run_notebook = __import__("run_notebook")
    for path in NOTEBOOK.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    fresh = run_notebook.run(tmp_path / NOTEBOOK.name)
    sys.modules.pop("run_notebook")
    assert (tmp_path / "settings.json").is_file()
    before, after = printed(stored), printed(fresh)
    assert len(before) >= 5
    # Numbers may differ in the last digits on another machine.
    assert [_NUMBER.sub("#", text) for text in before] == [_NUMBER.sub("#", text)
                                                           for text in after]
    rate = re.compile(r"before ([\d.]+) %, after ([\d.]+) %")
    [one], [other] = ([tuple(map(float, found.groups())) for text in texts
                       if (found := rate.search(text))] for texts in (before, after))
    assert other == pytest.approx(one, abs=1.0) and other[1] < other[0] - 2
    pictures = [output for cell in stored["cells"] for output in cell.get("outputs", [])
                if "image/png" in output.get("data", {})]
    assert len(pictures) == 1
