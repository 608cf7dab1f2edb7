"""Checks of arguments that the core does not see; errors never show a value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def check_texts(texts: object, name: str) -> None:
    """Refuses what is no list of str.

    Raises:
        TypeError: names the argument, the index, what was found and what is expected.
    """
    if (isinstance(texts, (str, bytes, bytearray, Mapping)) or not hasattr(texts, "__len__")
            or not hasattr(texts, "__getitem__")):
        raise _type_error(name, texts, "a list of str")
    found: Any = texts
    for i in range(len(found)):
        if not isinstance(found[i], str):
            raise _type_error(f"{name}[{i}]", found[i], "a str")


def check_text_lists(lists: object, name: str) -> None:
    """Refuses what is no list of lists of str.

    Raises:
        TypeError: as `check_texts`.
    """
    if isinstance(lists, (str, bytes, bytearray, Mapping)) or not hasattr(lists, "__getitem__"):
        raise _type_error(name, lists, "a list of lists of str")
    found: Any = lists
    for i in range(len(found)):
        check_texts(found[i], f"{name}[{i}]")


def check_rows(contexts: Sequence[str], candidate_words: Sequence[Sequence[str]]) -> None:
    """Refuses what is no list of contexts with a list of words each.

    Raises:
        TypeError: as `check_texts`.
        ValueError: the lengths differ.
    """
    check_texts(contexts, "contexts")
    check_text_lists(candidate_words, "candidate_words")
    if len(contexts) != len(candidate_words):
        raise ValueError(f"{len(contexts)} contexts and {len(candidate_words)} lists of candidate "
                         "words; one list a context expected")


def check_shape(values: Sequence[Sequence[float]], sizes: Sequence[int], name: str, rows: str,
                item: str) -> None:
    """Refuses numbers that are not one an item, as the core does.

    Args:
        values: [rows][items].
        sizes: [rows], how many items each has.
        rows, item: what they are, "lists" and "text", say.

    Raises:
        ValueError: names the argument and the row.
    """
    if len(values) != len(sizes):
        raise ValueError(f"{name} has {len(values)} rows for {len(sizes)} {rows}; one number a "
                         f"{item}, [{rows}][{item}s], expected")
    for i, (row, size) in enumerate(zip(values, sizes)):
        if len(row) != size:
            raise ValueError(f"{name}[{i}] has {len(row)} numbers for {size} {item}s; one a {item} "
                             "expected")


def check_number(value: object, name: str) -> float:
    """The number.

    Raises:
        TypeError: it is none.
        ValueError: it is not finite.
    """
    if isinstance(value, (str, bytes, bool)) or not hasattr(value, "__float__"):
        raise _type_error(name, value, "a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} = {number}; a finite number expected")
    return number


def check_progress(progress: object) -> None:
    """Refuses what cannot be called, None left aside.

    Raises:
        TypeError: it is something else.
    """
    if progress is not None and not callable(progress):
        raise _type_error("progress", progress, "a function of (done, total), or None,")


def _type_error(name: str, found: object, expected: str) -> TypeError:
    return TypeError(f"{name}: {type(found).__name__} found; {expected} expected")
