"""Model files that are not right: an error that says what is wrong, never a crash or wrong scores.

Every changed file is opened and asked in a process of its own, which tells what happened.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lmfusion import LMFusionScorer, ModelFileError
from model_files import (
    DESCRIPTION,
    PARTS,
    read_parts,
    with_description,
    with_right_table,
    write_parts,
)
from opened_models import Case, check, outcomes
from oracle import Oracle

# Values that a field of the description is given in turn.
VALUES: list[Any] = [None, True, -1, 0, 1, 2, 3, 7, 28, 31, 1000, 2**31, 2**32 + 1, 2**40, 2**63,
                     2**64, 0.5, -0.5, 1e308, "", "x", "tree", "plain", "tokenizer.model", [], [0],
                     [-1, 0, 0], {}, {"x": 1}, {"output_weight": "q4_0"}]


def numbered(folder: Path) -> Iterator[Path]:
    """The same two paths in turn: a file is read and closed before its name comes again."""
    while True:
        for name in ("a.lmf", "b.lmf"):
            yield folder / name


def changed_descriptions(bundle: Path, folder: Path) -> Iterator[Case]:
    files = numbered(folder)
    fields = json.loads(read_parts(bundle)[DESCRIPTION])
    for field, old in fields.items():
        yield f"{field} missing", with_description(bundle, lambda d, field=field: d.pop(field),
                                                   next(files))
        for value in VALUES:
            if type(value) is type(old) and value == old:
                continue
            yield (f"{field} = {value!r}",
                   with_description(bundle, lambda d, new={field: value}: d.update(new),
                                    next(files)))


# Fields whose values decide no score, or which another value fits as well.
def is_harmless(name: str) -> bool:
    field = name.split(maxsplit=1)[0]
    return field in {"source", "license", "torch", "transformers", "parity", "architecture",
                     "weight_counts", "tied_embeddings", "weights_sha256", "bos_source",
                     "start_tokens",
                     "attention_softcap", "dtype"} or name in {
        # The paths are scored with the start token that they have.
        *(f"{field} = {value}" for field in ("bos_token_id", "eos_token_id")
          for value in (-1, 0, 1, 2, 3, 7, 28, 31)), "tokenizer_adds_bos = True",
        *(f"max_positions = {value}" for value in (0, 7, 28, 31, 1000))}


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_any_value_in_any_field(oracle: Oracle, bundle: Path, tmp_path: Path,
                                device: str,
                                record_property: pytest.RecordProperty) -> None:
    results = outcomes(oracle.model, bundle, changed_descriptions(bundle, tmp_path), device)
    record_property("damaged files", len(results))
    assert len(results) > 700
    for value in (1, 2, 3):  # right, but the paths are too long for it
        assert results.pop(f"max_positions = {value}").startswith("ValueError: ")
    assert results.pop("tokenizer = ''").startswith("ValueError: the model file has no tokenizer")
    if device != "cpu":
        assert "plain model, which runs on the CPU only" in results.pop("kind = 'plain'")
    # Another temperature is another model, and its file is right.
    for name in [name for name in results if name.startswith(("logit_scale", "logit_softcap"))]:
        result = results.pop(name)
        assert result in ("right", "wrong scores") or \
            result.startswith(("ModelFileError: ", "NumericalError: ")), (name, result)
    check(results, is_harmless)


def damaged_files(bundle: Path, folder: Path) -> Iterator[Case]:
    files = numbered(folder)
    generator = random.Random(5)
    content = bundle.read_bytes()
    for _ in range(400):
        position, bit = generator.randrange(len(content)), generator.randrange(8)
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        path = next(files)
        path.write_bytes(damaged)
        yield f"bit {bit} of byte {position} flipped", path
    for _ in range(50):
        size = generator.randrange(len(content))
        path = next(files)
        path.write_bytes(content[:size])
        yield f"cut after {size} bytes", path
    for _ in range(50):
        begin, size = generator.randrange(len(content)), generator.randrange(1, 5000)
        path = next(files)
        path.write_bytes(content[:begin] + generator.randbytes(size) + content[begin + size:])
        yield f"{size} bytes from {begin} on replaced", path


def test_damaged_files(oracle: Oracle, bundle: Path, tmp_path: Path,
                       record_property: pytest.RecordProperty) -> None:
    """Bits that no reader looks at, such as the dates of entries, may be anything."""
    results = outcomes(oracle.model, bundle, damaged_files(bundle, tmp_path), "cpu")
    record_property("damaged files", len(results))
    assert len(results) == 500
    check(results)
    cut = [result for name, result in results.items() if name.startswith("cut")]
    assert all(result.startswith("ModelFileError") for result in cut)


def other_parts(bundle: Path, folder: Path) -> Iterator[Case]:
    files = numbered(folder)
    parts = read_parts(bundle)
    generator = random.Random(6)
    for name in parts:
        without = {other: content for other, content in parts.items() if other != name}
        yield f"without {name}", write_parts(without, next(files))
        if not parts[name]:
            continue  # traced_inputs
        yield f"{name} empty", write_parts({**parts, name: b""}, next(files))
        yield f"{name} twice as long", write_parts({**parts, name: parts[name] * 2}, next(files))
    yield "one more", write_parts({**parts, "code/more.py": b"pass"}, next(files))
    names = [name for name in parts if name != DESCRIPTION]
    for _ in range(60):
        one, other = generator.sample(names, 2)
        if parts[one] != parts[other]:
            swapped = {**parts, one: parts[other], other: parts[one]}
            yield f"{one} and {other} swapped", write_parts(swapped, next(files))


def test_other_parts_than_were_written(oracle: Oracle, bundle: Path,
                                       tmp_path: Path,
                                       record_property: pytest.RecordProperty) -> None:
    results = outcomes(oracle.model, bundle, other_parts(bundle, tmp_path), "cpu")
    record_property("damaged files", len(results))
    assert len(results) > 100
    # Without a description it is a TorchScript file like any other, but of other arguments.
    check(results, lambda name: False)


def other_tables(bundle: Path, folder: Path) -> Iterator[Case]:
    """Tables that agree with the parts, but speak of other tensors than the module has."""
    files = numbered(folder)
    parts = read_parts(bundle)
    table = json.loads(parts[PARTS])

    def with_tensors(tensors: dict[str, Any]) -> Path:
        content = json.dumps({**table, "tensors": tensors}).encode()
        return write_parts(with_right_table({**parts, PARTS: content}), next(files))

    for name, tensor in table["tensors"].items():
        others = {other: each for other, each in table["tensors"].items() if other != name}
        yield f"{name} missing", with_tensors(others)
        for field, value in (("type", "uint8"), ("type", 3), ("shape", [2**40, 2**40]),
                             ("shape", [-1]), ("shape", "x"), ("shape", []),
                             ("shape", [*tensor["shape"], 1]), ("part", "data/999"),
                             ("part", None)):
            yield (f"{name}.{field} = {value}",
                   with_tensors({**others, name: {**tensor, field: value}}))
    yield "one more tensor", with_tensors({**table["tensors"], "x": table["tensors"][name]})
    yield "no tensors", with_tensors({})


def test_tables_that_speak_of_other_tensors(oracle: Oracle, bundle: Path,
                                            tmp_path: Path,
                                            record_property: pytest.RecordProperty) -> None:
    results = outcomes(oracle.model, bundle, other_tables(bundle, tmp_path), "cpu")
    record_property("damaged files", len(results))
    assert len(results) > 200
    check(results, lambda name: False)


def test_graphs_that_do_not_run(bundle: Path, tmp_path: Path) -> None:
    """A right file of a module that is no model: the error comes when the scorer is made."""
    class Wrong(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.output_weight = torch.nn.Parameter(torch.zeros(280, width))

        def forward(self, tokens: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor,
                    segments: torch.Tensor, segment_slots: torch.Tensor,
                    kv: torch.Tensor) -> torch.Tensor:
            return torch.zeros(tokens.size(0) + 3, 32)

    from lmfusion.exporter.container import write_model_file
    description = read_parts(bundle)[DESCRIPTION].decode()
    fields = {**json.loads(description), "tokenizer": ""}
    path = tmp_path / "wrong.lmf"
    write_model_file(torch.jit.script(Wrong(32)), json.dumps(fields), {}, path)
    for device in ("cpu", "emulated"):
        with pytest.raises(ModelFileError, match="wrong.lmf: .*hidden states"):
            LMFusionScorer(path, device=device)
    write_model_file(torch.jit.script(torch.nn.Linear(2, 280, bias=False)),
                     json.dumps(fields | {"hidden_size": 2}), {}, path)
    with pytest.raises(ModelFileError, match="there is no output_weight"):
        LMFusionScorer(path)


def test_problems_are_counted_and_the_file_is_named(bundle: Path, tmp_path: Path) -> None:
    def change(description: dict[str, Any]) -> None:
        description.update(layers=0, hidden_size=-28)

    path = with_description(bundle, change, tmp_path / "wrong.lmf")
    with pytest.raises(ModelFileError) as error:
        LMFusionScorer(path)
    # windows and hidden_size against output_weight are wrong with them
    assert str(error.value) == (f"{path}: lmfusion.json: layers: 0; an integer from 1 to 4096 "
                                "expected (and 3 more; `python -m lmfusion inspect --verify` lists "
                                "them)")
