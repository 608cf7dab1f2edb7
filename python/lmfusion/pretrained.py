"""A scorer from a folder, a .gguf file or a name on the hub: exported once, kept, opened at once.

What is kept has the name of its source and a digest: of every byte of the source and of the LoRA
adapter, and of the versions of lmfusion's format, torch and transformers. A source that has not
changed (names, sizes, times of its files) is not read again to know that.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lmfusion.default_model import cache_folder, default_model, locked, say_on_stderr
from lmfusion.errors import ExportError
from lmfusion.replaced_file import replaced

Progress = Callable[[str], None]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.tiktoken", "*.jinja")
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
_OPENED_AS_THEY_ARE = (".lmf", ".pt", ".ts")


@dataclass(frozen=True)
class CachedModel:
    """A model file that was exported into the cache."""

    path: Path
    source: str
    bytes: int
    date: str  # ISO 8601, of the export

    @property
    def name(self) -> str:
        """By which `remove_cached` finds it."""
        return self.path.stem


def model_file(model: str | os.PathLike[str] | None = None, *,
               lora: str | os.PathLike[str] | None = None, revision: str | None = None,
               cache_dir: str | os.PathLike[str] | None = None, uncached: bool = False,
               progress: Progress | None = None) -> Path:
    """The path of a model file that stands for `model`, exported at the first call.

    Args:
        model: a model file (given back as it is), a Hugging Face folder, a .gguf file, or a name
            on the hub such as "gpt2"; None: the default model.
        lora: folder of a LoRA adapter, merged into the weights.
        revision: of a name on the hub: a branch, a tag or a commit.
        cache_dir: where exports are kept; default: models/ in $LMFUSION_CACHE or ~/.cache/lmfusion.
        uncached: export the plain form, for models that tree attention cannot hold.
        progress: called with a line of text at every stage; prints to stderr by default.

    Raises:
        FileNotFoundError: there is no such file or folder, and no model of that name can be had.
        ExportError: the model cannot be exported exactly; says what can be done.
        ValueError: `lora` or `revision` with what cannot have one.
    """
    say = progress or say_on_stderr
    path = Path(model) if model is not None else None
    if path is None or (path.is_file() and path.suffix != ".gguf"):
        if lora is not None:
            raise ValueError("lora needs the original model (a folder, a .gguf file or a name on "
                             "the hub): an exported file takes no adapter")
        return path if path is not None else default_model(progress=say)
    source = source_folder(path, revision, progress=say)
    adapter = None if lora is None else Path(lora)
    if adapter is not None and not adapter.is_dir():
        raise FileNotFoundError(f"no such folder of a LoRA adapter: {adapter}")
    folder = cache_folder() / "models" if cache_dir is None else Path(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    name = os.fspath(path).replace("/", "--") if not path.exists() else path.resolve().stem
    bundle = folder / f"{name}-{_digest(source, adapter, uncached, folder)[:16]}.lmf"
    if bundle.is_file():
        return bundle
    with locked(folder / f".{bundle.stem}.lock"):
        if not bundle.is_file():
            _export(source, adapter, bundle, uncached,
                    f"{path}" + (f" at {revision}" if revision else "")
                    + (f" with {adapter}" if adapter else ""), say)
    return bundle


def source_folder(model: str | os.PathLike[str], revision: str | None = None, *,
                  progress: Progress | None = None) -> Path:
    """The folder or file that `model` names: itself, or where the hub's cache has it.

    Raises:
        FileNotFoundError, ValueError: as `model_file`.
    """
    path = Path(model)
    if not path.exists():
        return _from_hub(os.fspath(model), revision, progress or say_on_stderr)
    if revision is not None:
        raise ValueError(f"revision = {revision!r} is for a name on the hub; {path} is a path")
    return path


def cached_models(cache_dir: str | os.PathLike[str] | None = None) -> list[CachedModel]:
    """What `model_file` and `default_model` have exported, the newest first."""
    folders = [cache_folder() / "models", cache_folder()] if cache_dir is None else [
        Path(cache_dir)]
    found = []
    for path in [path for folder in folders for path in folder.glob("*.lmf")]:
        note = path.with_suffix(".json")
        known = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        date = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        found.append(CachedModel(path, known.get("source", "the default model"),
                                 path.stat().st_size, known.get("date", date)))
    return sorted(found, key=lambda model: (model.date, model.name), reverse=True)


def remove_cached(name: str, cache_dir: str | os.PathLike[str] | None = None) -> list[CachedModel]:
    """Removes the model files of a name or source from the cache; gives those that were.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    gone = [model for model in cached_models(cache_dir) if name in (model.name, model.source,
                                                                    model.path.name)]
    if not gone:
        raise FileNotFoundError(f"nothing called {name!r} is kept; `lmfusion models` lists what is")
    for model in gone:
        for path in (model.path, model.path.with_suffix(".json")):
            path.unlink(missing_ok=True)
    return gone


def _from_hub(name: str, revision: str | None, say: Progress) -> Path:
    """The folder of a model of the hub: what is on this machine, else a download."""
    if name.endswith((*_OPENED_AS_THEY_ARE, ".gguf")) or not _HUB_NAME.fullmatch(name):
        raise FileNotFoundError(f"no such model: {name} is neither a file nor a folder here, and "
                                "no name on a model hub")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.constants import HF_HUB_CACHE
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise ExportError(f"{name} is no file or folder here; a name on the hub needs the package "
                          "huggingface_hub: pip install 'lmfusion[export]'") from None
    try:
        there = Path(snapshot_download(name, revision=revision, local_files_only=True))
        if any(path for pattern in _WEIGHTS for path in there.glob(pattern)):
            return there
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    try:
        say(f"downloading {name} from the hub, once, into {HF_HUB_CACHE}")
        there = Path(snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
        if not any(there.glob("*.safetensors")):
            there = Path(snapshot_download(name, revision=revision,
                                           allow_patterns=[*_FILES, "*.bin"]))
    except Exception as error:  # of huggingface_hub, httpx and the system: there is no model
        raise FileNotFoundError(
            f"no such model: {name} is neither a file nor a folder here, it is not in the hub's "
            f"cache ({HF_HUB_CACHE}), and it cannot be downloaded "
            f"({type(error).__name__}). On a machine with network: hf download {name} --local-dir "
            f"FOLDER; copy FOLDER (config.json, tokenizer files, *.safetensors) here and give its "
            "path in place of the name, or set HF_HOME to a copy of the hub's cache") from error
    return there


def _digest(source: Path, lora: Path | None, uncached: bool, folder: Path) -> str:
    """Of content and versions."""
    from lmfusion.exporter.metadata import FORMAT
    digest = hashlib.sha256(f"format {FORMAT}, uncached {uncached}\n".encode())
    for package in ("torch", "transformers"):
        digest.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    for path in (source, lora):
        digest.update(b"none\n" if path is None else _content(path, folder).encode())
    return digest.hexdigest()


def _content(source: Path, folder: Path) -> str:
    """SHA-256 of a file, or of the names and bytes of a folder's files.

    It is kept beside names, sizes and times of these, and read again where they are the same.
    """
    files = [source] if source.is_file() else sorted(
        path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    stamp = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
    place = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:16]
    note = folder / f".source-{place}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["files"] == stamp:
            return str(known["sha256"])
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n"
                          .encode())
    _write_json(note, {"files": stamp, "sha256": digest.hexdigest()})
    return digest.hexdigest()


def _export(source: Path, lora: Path | None, bundle: Path, uncached: bool, origin: str,
            say: Progress) -> None:
    from lmfusion.exporter import export_folder
    say(f"exporting {origin} once, into {bundle}")
    export_folder(source, bundle, lora=lora, uncached=uncached, source=origin, progress=say)
    _write_json(bundle.with_suffix(".json"),
                {"source": origin,
                 "date": datetime.now(UTC).isoformat(timespec="seconds")})


def _write_json(path: Path, content: object) -> None:
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
