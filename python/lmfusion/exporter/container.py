"""Writing a model file: TorchScript's archive, and the tables that it is checked against.

Note [The table of parts]
`torch.jit.save` writes the module and the files beside it (tokenizer, truecaser) as entries of a
zip archive. Two entries are added to that: `lmfusion.json`, the description, and
`lmfusion.parts.json`, which has the length, zlib's crc32 and the SHA-256 of every other entry, and
for every tensor of the module its type, its shape and the entry that holds its numbers. A reader
checks all of that before torch sees the file (src/bundle). The crc32 finds damage at every load;
who knows the SHA-256 of `lmfusion.parts.json` knows with it that of everything in the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

DESCRIPTION = "extra/lmfusion.json"
PARTS = "extra/lmfusion.parts.json"
PIECE = 1 << 20  # bytes read at once
ROOM = 16 << 20  # bytes for what is not the numbers of tensors: code, tables, padding


def write_model_file(module: torch.jit.ScriptModule, description: str,
                     extra_files: Mapping[str, str | bytes], path: str | os.PathLike[str]) -> None:
    """Writes a model file.

    Args:
        module: what is executed.
        description: the content of `lmfusion.json`.
        extra_files: name -> content of the files beside it.
        path: file to write; replaced if there is one.

    Raises:
        OSError: the disk has no room for it, or cannot be written.
    """
    _find_room(module, extra_files, Path(path))
    torch.jit.save(module, os.fspath(path), _extra_files=dict(extra_files))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        folder = _folder(archive)
        parts = {entry.filename.removeprefix(f"{folder}/"): _describe_part(archive, entry)
                 for entry in archive.infolist()}
        _add_tables(archive, description,
                    {"parts": parts, "tensors": _describe_tensors(module, parts)})


def describe_again(path: str | os.PathLike[str], description: str) -> None:
    """Gives a file of `write_model_file` another description; all else stays where it is."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        old = [archive.getinfo(f"{_folder(archive)}/{name}") for name in (DESCRIPTION, PARTS)]
        table = json.loads(archive.read(old[1]))
        archive.start_dir = old[0].header_offset  # both come last: the new ones take their place
        for entry in old:
            archive.filelist.remove(entry)
            del archive.NameToInfo[entry.filename]
        _add_tables(archive, description, table)


def _folder(archive: zipfile.ZipFile) -> str:
    """Torch puts all entries into one."""
    return archive.namelist()[0].partition("/")[0]


def _add_tables(archive: zipfile.ZipFile, description: str, table: dict[str, Any]) -> None:
    """Adds the description, and the table with its length and checksums."""
    entry = zipfile.ZipInfo(f"{_folder(archive)}/{DESCRIPTION}")
    archive.writestr(entry, description)
    table["parts"][DESCRIPTION] = _describe_part(archive, entry)
    archive.writestr(zipfile.ZipInfo(f"{_folder(archive)}/{PARTS}"), json.dumps(table))


def _find_room(module: torch.nn.Module, extra_files: Mapping[str, str | bytes],
               path: Path) -> None:
    """Takes the room of the file and gives it back: a write that fails ends torch's process."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
                for tensor in module.state_dict().values()}
    size = sum(storages.values()) + sum(map(len, extra_files.values())) + ROOM
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, f"no room for a model file of {size} bytes: {error.strerror}",
                      str(path)) from None
    path.unlink()


def _describe_part(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> dict[str, Any]:
    digest = hashlib.sha256()
    with archive.open(entry) as content:
        while piece := content.read(PIECE):
            digest.update(piece)
    return {"bytes": entry.file_size, "crc32": entry.CRC, "sha256": digest.hexdigest()}


def _describe_tensors(module: torch.nn.Module,
                      parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The parameters and buffers of a module; the part of each is the one with its bytes."""
    named = {part["sha256"]: name for name, part in parts.items() if name.startswith("data/")}
    holders: dict[int, str] = {}  # by address: tied tensors are hashed once
    tensors = {}
    for name, tensor in module.state_dict().items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in holders:
            content = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
            holders[storage.data_ptr()] = named[hashlib.sha256(content.data).hexdigest()]
        tensors[name] = {"type": str(tensor.dtype).removeprefix("torch."),
                         "shape": list(tensor.shape), "part": holders[storage.data_ptr()]}
    return tensors
