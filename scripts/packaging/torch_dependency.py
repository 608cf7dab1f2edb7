"""What scikit-build-core adds to the dependencies of a wheel: the torch that it was built with.

torch's C++ libraries change from one minor version to the next, so a wheel works with that one
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata


def torch_dependency() -> str:
    """Of this torch, any patch: torch==2.11.*; where there is none (a source archive): torch."""
    try:
        major, minor = metadata.version("torch").split(".")[:2]
    except metadata.PackageNotFoundError:
        return "torch"
    return f"torch=={major}.{minor}.*"


def dynamic_metadata(_settings: Mapping[str, object],
                     _project: Mapping[str, object]) -> dict[str, list[str]]:
    return {"dependencies": [torch_dependency()]}


def dynamic_wheel(_settings: Mapping[str, object]) -> dict[str, bool]:
    """A wheel may demand another torch than the source archive that it is built from."""
    return {"dependencies": True}
