"""Model files made to take much: what is small in the file and large in memory or time, counts and
sizes that are not true, JSON without end, another model's tokenizer, another version. Each is an
error in little memory, or as right as the file that it was made of."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lmfusion import _core
from model_files import DESCRIPTION, PARTS, read_parts, with_right_table, write_parts
from opened_models import Case, check, outcomes
from oracle import Oracle
from tokenizers import Tokenizer, models, pre_tokenizers

TOKENIZER = "extra/tokenizer.json"
DEEP = 200_000
DEPTHS = {"lists": ("[", "]"), "objects": ('{"a":', "}")}


def nested(kind: str, depth: int = DEEP) -> bytes:
    begin, end = DEPTHS[kind]
    return f"{begin * depth}1{end * depth}".encode()


def documents() -> Iterator[tuple[str, bytes]]:
    """JSON that is no description, table or tokenizer."""
    for kind in DEPTHS:
        yield f"nested {kind}", nested(kind)
        yield f"nested {kind} without an end", nested(kind)[:DEEP]
        yield f"a nested {kind} in a field", b'{"layers": ' + nested(kind) + b"}"
        yield f"nested {kind} in a known object", b'{"weight_types": {"x": ' + nested(kind) + b"}}"
        yield f"{kind} of some depth", b'{"weight_types": {"x": ' + nested(kind, 14) + b"}}"
    yield "many numbers", b"[" + b"0," * 1_000_000 + b"0]"
    yield "many empty lists", b"[" + b"[]," * 500_000 + b"0]"
    yield "many empty objects", b'{"parts": [' + b"{}," * 500_000 + b"{}]}"
    yield "many fields", ("{" + ",".join(f'"{i}":0' for i in range(300_000)) + "}").encode()
    yield "a long number", b'{"layers": ' + b"9" * 1_000_000 + b"}"
    yield "a long text", b'{"layers": "' + b"x" * 6_000_000 + b'"}'
    yield "white space", b" " * 6_000_000
    yield "too long", b" " * 17_000_000


def documents_in(part: str, bundle: Path, folder: Path) -> Iterator[Case]:
    parts = read_parts(bundle)
    for name, content in documents():
        changed = {**parts, part: content}
        yield name, write_parts(changed if part == PARTS else with_right_table(changed),
                                folder / "bomb.lmf")


@pytest.mark.parametrize("part", [DESCRIPTION, PARTS])
def test_json_without_end(oracle: Oracle, bundle: Path, tmp_path: Path, part: str,
                          record_property: pytest.RecordProperty) -> None:
    results = outcomes(oracle.model, bundle, documents_in(part, bundle, tmp_path), "cpu")
    record_property("damaged files", len(results))
    check(results, lambda name: False)
    assert "nested too deeply" in results["nested lists"]
    assert "too many values" in results["many numbers"]
    assert "a text that is too long" in results["a long text"]


def test_json_without_end_as_a_tokenizer() -> None:
    """What a tokenizer.json takes in memory is some thirty times its size at worst, as its values
    are of two bytes there (SECURITY.md); nesting ends it at once."""
    for name, content in documents():
        with pytest.raises(_core.TokenizerError) as raised:
            _core.Tokenizer.from_json(content.decode())
        assert len(str(raised.value)) < 300, name


def archive(parts: dict[str, bytes], compressed: set[str], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(f"model/{name}"), content,
                          zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED)
    return path


def overlapping(count: int, size: int, path: Path) -> Path:
    """`count` entries of a directory that all are the same bytes of the file."""
    content = b"\0" * size
    crc = zlib.crc32(content)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, crc, size, size, 9, 0)
    body = local + b"model/000" + content
    directory = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, crc, size, size, 9, 0, 0, 0, 0,
                    0, 0) + f"model/{i:03}".encode() for i in range(count))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path


def archives(bundle: Path, folder: Path) -> Iterator[Case]:
    parts, path = read_parts(bundle), folder / "bomb.lmf"
    zeros = b"\0" * 40_000_000
    code = next(name for name in parts if name.endswith(".py"))
    for name, content in [(TOKENIZER, zeros), (DESCRIPTION, b" " * 6_000_000),
                          ("data/0", zeros), ("extra/truecaser", zeros), (code, zeros),
                          (code, b"\n" * 20_000_000), ("code/more.py", b"\n" * 15_000_000)]:
        changed = with_right_table({**parts, name: content})
        yield f"{name} of {len(content)} compressed bytes", archive(changed, {name, code}, path)
    halves = with_right_table({**parts, **{f"code/{i}.py": b"\n" * 1_000_000 for i in range(30)}})
    yield "much code in parts", archive(halves, {code, *(f"code/{i}.py" for i in range(30))}, path)
    yield "everything compressed", archive(parts, set(parts), path)
    many = with_right_table({**parts, **{f"extra/{i}": b"" for i in range(70_000)}})
    yield "many parts", archive(many, {code}, path)
    yield "entries that overlap", overlapping(900, 1_000_000, path)
    good = bundle.read_bytes()
    for field, width in ((20, "I"), (24, "I"), (42, "I"), (28, "H"), (30, "H"), (32, "H")):
        for value in (0, 1, 2**16 - 1, *((2**31, 2**32 - 1) if width == "I" else ())):
            changed = bytearray(good)
            at = good.index(b"PK\1\2") + field  # of the first entry of the directory
            struct.pack_into(f"<{width}", changed, at, value)
            path.write_bytes(changed)
            yield f"{value} at {field} of an entry", path
    end = good.rindex(b"PK\5\6")
    for field, width in ((8, "H"), (10, "H"), (12, "I"), (16, "I"), (20, "H")):
        changed = bytearray(good)
        struct.pack_into(f"<{width}", changed, end + field, 2**(8 * struct.calcsize(width)) - 1)
        path.write_bytes(changed)
        yield f"the most at {field} of the end", path


def test_archives_that_say_too_much(oracle: Oracle, bundle: Path, tmp_path: Path,
                                    record_property: pytest.RecordProperty) -> None:
    results = outcomes(oracle.model, bundle, archives(bundle, tmp_path), "cpu")
    record_property("damaged files", len(results))
    assert "only code may" in results[f"{TOKENIZER} of 40000000 compressed bytes"]
    # More code that nobody calls is as harmless as fields that nobody reads.
    check(results, lambda name: " at " in name or name.startswith("code/more.py"))


def of_another_model(bundle: Path, folder: Path) -> Iterator[Case]:
    parts, path = read_parts(bundle), folder / "other.lmf"
    description = json.loads(parts[DESCRIPTION])

    def with_tokenizer(content: bytes) -> Path:
        return write_parts(with_right_table({**parts, TOKENIZER: content}), path)

    def pieces(count: int, **more: Any) -> bytes:
        tokenizer = Tokenizer(models.BPE({**{f"p{i}": i for i in range(count - 3)}, "t": count - 3,
                                          "h": count - 2, "e": count - 1}, [], **more))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return tokenizer.to_str().encode()

    for count in (4, 100, 279, 281, 5000):
        yield f"a tokenizer of {count} pieces", with_tokenizer(pieces(count))
    yield "the largest id", with_tokenizer(json.dumps({
        "model": {"vocab": {"the": 2**24 - 1}, "merges": []}}).encode())
    yield "no tokenizer.json", with_tokenizer(b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02")
    yield "another's tokenizer and the table that was there", write_parts(
        {**parts, TOKENIZER: pieces(280)}, path)
    for version in (0, 1, 2, description["format"] + 1, 99, 2**40):
        changed = json.dumps({**description, "format": version}).encode()
        yield f"format {version}", write_parts(
            with_right_table({**parts, DESCRIPTION: changed}), path)
    for name, contents in {"version": [b"0", b"1", b"99", b"x", b"", b"9" * 10**6],
                           "byteorder": [b"big", b"x" * 10**6],
                           ".data/serialization_id": [b"9" * 40]}.items():
        for content in contents:
            yield f"{name} {content[:9].decode()}", write_parts(
                with_right_table({**parts, name: content}), path)


def test_files_of_another_model_or_version(oracle: Oracle, bundle: Path,
                                           tmp_path: Path,
                                           record_property: pytest.RecordProperty) -> None:
    results = outcomes(oracle.model, bundle, of_another_model(bundle, tmp_path), "cpu")
    record_property("damaged files", len(results))
    for name in ("another's tokenizer and the table that was there", "format 99", "format 1"):
        assert results[name].startswith("ModelFileError: "), results[name]
    for pieces in (281, 5000):
        assert f"tokenizer.json: model.vocab: ids up to {pieces - 1}, but the model has 280" in (
            results[f"a tokenizer of {pieces} pieces"])
    assert results.pop("no tokenizer.json").startswith("TokenizerError: ")
    check(results)
