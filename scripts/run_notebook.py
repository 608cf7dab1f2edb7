"""Runs the code of a notebook and writes what it prints and shows into it.

    .venv/bin/python scripts/run_notebook.py examples/notebook/better_word_error_rate.ipynb

The cells are plain Python: no magics, no kernel. A cell's last expression is shown: pictures (bytes
of a PNG) as pictures, everything else as its repr. tests/python/test_notebook.py does the same.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

PNG = b"\x89PNG"


def run(path: Path) -> dict[str, Any]:
    """The notebook with its outputs; its folder is the working directory meanwhile.

    Raises:
        Exception: what a cell raises.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(path.resolve().parent)
    try:
        count = 0
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                count += 1
                cell["execution_count"] = count
                cell["outputs"] = _outputs("".join(cell["source"]), names, count)
    finally:
        os.chdir(before)
    return dict(notebook)


def _outputs(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {count}", "exec"), names)
        value = None if not isinstance(last, ast.Expr) else eval(
            compile(ast.Expression(last.value), f"cell {count}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout",
                        "text": printed.getvalue().splitlines(keepends=True)})
    if isinstance(value, bytes) and value.startswith(PNG):
        data: dict[str, Any] = {"image/png": base64.b64encode(value).decode()}
    elif value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
    else:
        return outputs
    return [*outputs, {"output_type": "execute_result", "execution_count": count, "metadata": {},
                       "data": data}]


def main() -> None:
    path = Path(sys.argv[1])
    path.write_text(json.dumps(run(path), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
