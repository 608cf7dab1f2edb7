"""Writes what follows from the tables of options and counters: their part of the stub of the core,
and docs/reference.md. Run it after a change of include/lmfusion/*_fields.inc and a build:

    .venv/bin/python scripts/write_tables.py
"""

from __future__ import annotations

from pathlib import Path

from lmfusion import _core

ROOT = Path(__file__).resolve().parents[1]
STUB = ROOT / "python" / "lmfusion" / "_core.pyi"
REFERENCE = ROOT / "docs" / "reference.md"
BEGIN, END = "    # begin: stats_fields.inc\n", "    # end: stats_fields.inc\n"


def stub() -> str:
    """The stub with the properties of Stats."""
    before, rest = STUB.read_text().split(BEGIN)
    fields = "".join(f"    @property\n    def {name}(self) -> {type_}: ...\n"
                     for name, _, type_, _ in _core.stats_fields())
    return before + BEGIN + fields + END + rest.split(END)[1]


def reference() -> str:
    """docs/reference.md."""
    lines = ["# Options and counters", "",
             "Made by `scripts/write_tables.py` from `include/lmfusion/options_fields.inc` and",
             "`include/lmfusion/stats_fields.inc`; a test compares.", "", "## Options", "",
             "Keywords of `lmfusion.LMFusionScorer`, fields of `lmfusion::ScorerOptions`. "
             "`scorer.options` has them all.", "", "| Name | Default | |", "|---|---|---|"]
    for name, default, text in _core.option_fields():
        lines.append(f"| `{name}` | {shown(default)} | {cell(text)} |")
    lines += ["", "`tokenizer`, a function from a text to its token ids (C++: a `Tokenizer`), "
              "takes the place of the model's own.", "", "## Counters", "",
              "Of `scorer.stats()`, with `to_dict()` and `to_json()`; `+` adds those of several "
              "scorers. What is marked is set to 0 by `reset_stats()`.", "",
              "| Name | Reset | |", "|---|---|---|"]
    for name, is_reset, _, text in _core.stats_fields():
        lines.append(f"| `{name}` | {'x' if is_reset else ''} | {cell(text)} |")
    return "\n".join(lines) + "\n"


def shown(default: object) -> str:
    return f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    STUB.write_text(stub())
    REFERENCE.write_text(reference())
