"""The typed stub of the compiled module against the module."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lmfusion import _core

PACKAGE = Path(_core.__file__).parent
# What every pybind11 class has and no stub says: a metaclass, and a constructor that refuses.
ALLOWED = r"""
lmfusion\._core\.(BestHypothesis|BestList|Explanation|Explanation\.Form|Explanation\.Token|LMFusionScorer|Stats|TextStage|Tokenizer|Truecaser)
lmfusion\._core\.(BestHypothesis|BestList|Explanation|Explanation\.Form|Explanation\.Token|Stats|Tokenizer)\.__init__
"""


def stubtest(directory: Path, package_root: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mypy.stubtest", reason="pip install mypy")
    config, allowed = directory / "mypy.ini", directory / "allowed"
    # The stub alone: what the package imports is not looked at.
    config.write_text("[mypy]\nfollow_imports = skip\nignore_missing_imports = True\n"
                      f"cache_dir = {directory / 'cache'}\n")
    allowed.write_text(ALLOWED)
    return subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "lmfusion._core", "--mypy-config-file", config,
         "--allowlist", allowed, "--concise"],
        cwd=directory, env={**os.environ, "PYTHONPATH": str(package_root),
                            "MYPYPATH": str(package_root)},
        capture_output=True, text=True, check=False)


def test_stub_has_what_the_module_has(tmp_path: Path) -> None:
    found = stubtest(tmp_path, PACKAGE.parent)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_wrong_stub_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "lmfusion"
    wrong.mkdir()
    for file in PACKAGE.iterdir():
        if file.suffix != ".pyi":
            (wrong / file.name).symlink_to(file)
    stub = (PACKAGE / "_core.pyi").read_text()
    (wrong / "_core.pyi").write_text(stub.replace("def clear_cache", "def clear_cash"))
    found = stubtest(tmp_path, tmp_path)
    assert found.returncode != 0
    assert "clear_cash" in found.stdout and "clear_cache" in found.stdout


def signatures_of_the_stub() -> dict[str, list[str]]:
    """"Class.method" -> parameters, with "*" where only names may follow and "=" for defaults."""
    found = {}
    for scope in ast.parse((PACKAGE / "_core.pyi").read_text()).body:
        for method in scope.body if isinstance(scope, ast.ClassDef) else []:
            if not isinstance(method, ast.FunctionDef) or any(
                    isinstance(mark, ast.Name) and mark.id == "property"
                    for mark in method.decorator_list):
                continue
            arguments = method.args
            required = len(arguments.args) - len(arguments.defaults)
            names = [name.arg + "=" * (i >= required) for i, name in enumerate(arguments.args)]
            if arguments.kwonlyargs:
                names.append("*")
            names += [name.arg + "=" * (default is not None)
                      for name, default in zip(arguments.kwonlyargs, arguments.kw_defaults)]
            if arguments.kwarg is not None:
                names.append(f"**{arguments.kwarg.arg}")
            found[f"{scope.name}.{method.name}"] = names
    return found


def signature_of_the_module(name: str) -> list[str]:
    """The same, read off the first line of the docstring, which pybind11 writes."""
    scope, method = name.split(".")
    first = (getattr(getattr(_core, scope), method).__doc__ or "").splitlines()[0]
    inside = first[first.index("(") + 1:first.rindex(") ->")]
    while (flat := re.sub(r"\[[^\[\]]*\]", "", inside)) != inside:
        inside = flat
    inside = re.sub(r"\([^()]*\)", "", re.sub(r"'[^']*'", "''", inside))
    names = [part.strip() for part in inside.split(",")]
    return [re.split(r"[:=]", part)[0].strip() + "=" * ("=" in part) for part in names]


@pytest.mark.parametrize("name", sorted(signatures_of_the_stub()))
def test_parameters_are_those_of_the_module(name: str) -> None:
    assert signatures_of_the_stub()[name] == signature_of_the_module(name)


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
