"""Writes the counts of the package `truecase` in the form that the engine maps into memory."""

from __future__ import annotations

import importlib.util
import os
import pickle
import struct
import sys
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from lmfusion.errors import ExportError

MAGIC = b"LMFTRUEC"
VERSION = 2
BYTE_ORDER = 0x0A0B0C0D
PARTS = ("uni_dist", "backward_bi_dist", "forward_bi_dist", "trigram_dist", "word_casing_lookup")
Counts = Mapping[str, int]
Word = int  # number of a word in the sorted list of all words


def export_truecaser(path: str | os.PathLike[str],
                     distributions: str | os.PathLike[str] | Mapping[str, Any] | None = None
                     ) -> Path:
    """Writes a truecaser file (its format: src/text/casing/truecase_model.h).

    Args:
        path: the file to write; it is replaced only when the new one is complete.
        distributions: a distribution file of the package `truecase` (a pickle: only its own
            types are loaded, no code is run), or the five mappings in it. None is the English
            one that comes with the installed package.

    Raises:
        ExportError: the package is not installed, or the distributions are not of the known form.
    """
    if not isinstance(distributions, Mapping):
        distributions = _load(distributions)
    missing = [part for part in PARTS if part not in distributions]
    if missing:
        raise ExportError(f"the distributions lack {', '.join(missing)}; expected a file written "
                          "by truecase.Trainer.save_to_file")
    content = _file(*(distributions[part] for part in PARTS))
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
    return path


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("nltk.probability", "FreqDist"):
            return Counter
        if (module, name) in {("builtins", "set"), ("collections", "Counter"),
                              ("collections", "defaultdict")}:
            return super().find_class(module, name)
        raise ExportError(f"the distribution file holds a {module}.{name}, which is not part of a "
                          "truecase distribution; nothing was run")


def _load(distributions: str | os.PathLike[str] | None) -> Mapping[str, Any]:
    if distributions is None:
        spec = importlib.util.find_spec("truecase")
        if spec is None or spec.origin is None:
            raise ExportError("the package truecase is not installed: pip install truecase==0.0.14")
        distributions = Path(spec.origin).parent / "data" / "english.dist"
    try:
        with open(distributions, "rb") as file:
            loaded = _Unpickler(file).load()
    except (OSError, pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError,
            ImportError, IndexError, KeyError) as error:
        raise ExportError(f"{distributions}: cannot be read as a distribution of the package "
                          f"truecase: {error}") from error
    if not isinstance(loaded, Mapping):
        raise ExportError(f"{distributions}: not a distribution of the package truecase")
    return loaded


def _file(unigrams: Counts, backward: Counts, forward: Counts, trigrams: Counts,
          casings: Mapping[str, Iterable[str]]) -> bytes:
    lower_of = {form: key for key, forms in casings.items() for form in forms}
    wrong = [form for form, key in lower_of.items() if form.lower() != key]
    if wrong:
        raise ExportError(f"{wrong[0]!r} is listed as a casing of {lower_of[wrong[0]]!r}")
    # Only words with a choice are looked up in context.
    choices = {form for forms in casings.values() if len(set(forms)) > 1 for form in forms}
    if any("_" in form or not form for form in choices):
        raise ExportError("a word with several casings holds '_', which joins the words of a key")

    before = {pair: count for key, count in backward.items()
              for pair in [_split(key, key.rpartition("_"), 2, choices)] if pair}
    after = {pair: count for key, count in forward.items()
             for pair in [_split(key, key.partition("_"), 0, choices)] if pair}
    between = {triple: count for key, count in trigrams.items()
               for triple in [_split_trigram(key, choices)] if triple}

    words = sorted({*casings, *lower_of, *(word for pair in [*before, *after] for word in pair),
                    *(word for triple in between for word in triple)},
                   key=lambda word: word.encode())
    return _pack(words, unigrams, before, after, between, casings)


def _split(key: str, parts: tuple[str, str, str], form: int,
           choices: set[str]) -> tuple[str, str] | None:
    """(form, neighbour) of a key "neighbour_form" or "form_neighbour"; None: never looked up."""
    return (parts[form], parts[2 - form]) if parts[1] and parts[form] in choices else None


def _split_trigram(key: str, choices: set[str]) -> tuple[str, str, str] | None:
    """(form, previous, next) of a key "previous_form_next"; None: never looked up."""
    parts = key.split("_")
    splits = [(parts[i], "_".join(parts[:i]), "_".join(parts[i + 1:]))
              for i in range(1, len(parts) - 1) if parts[i] in choices]
    if len(splits) > 1:
        raise ExportError(f"the trigram {key!r} can be read in several ways")
    return splits[0] if splits else None


def _pack(words: list[str], unigrams: Counts, before: Mapping[tuple[str, str], int],
          after: Mapping[tuple[str, str], int], between: Mapping[tuple[str, str, str], int],
          casings: Mapping[str, Iterable[str]]) -> bytes:
    number = {word: i for i, word in enumerate(words)}
    # In order of preference among equal scores.
    forms = [sorted(set(casings.get(word, ())), reverse=True,
                    key=lambda form: (unigrams.get(form, 0), form)) for word in words]
    form_words = [form for group in forms for form in group]
    form_number = {form: i for i, form in enumerate(form_words)}

    def numbered(counts: Mapping[Any, int]) -> list[tuple[int, ...]]:
        return sorted((form_number[key[0]], *(number[word] for word in key[1:]), count)
                      for key, count in counts.items())

    # Every trigram hangs on its backward entry.
    heads: dict[tuple[str, str], int] = {(form, previous): 0 for form, previous, _ in between}
    backward = numbered({**heads, **before})
    forward = numbered(after)
    trigrams = numbered(between)
    head_number = {entry[:2]: i for i, entry in enumerate(backward)}

    sections = [
        _begins(len(word.encode()) for word in words),
        _begins(len(group) for group in forms),
        [number[form] for form in form_words],
        [unigrams.get(form, 0) for form in form_words],
        _begins(_sizes(len(form_words), (entry[0] for entry in backward))),
        _begins(_sizes(len(form_words), (entry[0] for entry in forward))),
        [entry[1] for entry in backward],
        [entry[2] for entry in backward],
        _begins(_sizes(len(backward), (head_number[entry[:2]] for entry in trigrams))),
        [entry[1] for entry in forward],
        [entry[2] for entry in forward],
        [entry[2] for entry in trigrams],
        [entry[3] for entry in trigrams],
    ]
    strings = "".join(words).encode()
    body = b"".join(_little_endian("I", section) for section in sections) + strings
    body += bytes(-len(body) % 8)
    sizes = (len(words), len(form_words), len(backward), len(forward), len(trigrams), len(strings))
    return struct.pack("<8sIIQQ6IQ", MAGIC, VERSION, BYTE_ORDER, 64 + len(body), zlib.crc32(body),
                       *sizes, 0) + body


def _sizes(groups: int, members: Iterable[int]) -> list[int]:
    sizes = [0] * groups
    for group in members:
        sizes[group] += 1
    return sizes


def _begins(sizes: Iterable[int]) -> list[int]:
    return [0, *accumulate(sizes)]


def _little_endian(kind: str, values: Iterable[int]) -> bytes:
    try:
        numbers = array(kind, values)
    except (OverflowError, TypeError) as error:
        raise ExportError(f"a count or size is not an integer below 2^32: {error}") from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
