"""A CTC prefix search over the characters of a lexicon's words.

A stand-in for toolkits that are too heavy for an example.

It asks a language model as those do: for a row over the units, of many prefixes at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy
from comparison import Weights
from emissions import BLANK, SPACE, UNITS, lexicon

Prefix = tuple[int, ...]
Rows = Callable[[Sequence[Prefix]], Sequence[Sequence[float]]]  # [prefixes][units], nats
Ends = Callable[[Sequence[Prefix]], Sequence[float]]  # [prefixes], nats

# Chosen by bench/choose_weights.py.
WITHOUT, WITH = Weights(0.0, 4.5), Weights(1.0, 4.5)

NEVER = -math.inf
WORDS = set(lexicon())
BEGINNINGS = {word[:size] for word in WORDS for size in range(len(word) + 1)}


def search(log_probs: numpy.ndarray, rows: Rows | None, ends: Ends | None, weights: Weights, *,
           beam: int = 24, units: int = 8) -> str:
    """The best text for [frames, units] of log p; without `rows`, by sound and lexicon alone."""
    blank, space = UNITS.index(BLANK), UNITS.index(SPACE)
    weight, word_bonus = weights
    row_of: dict[Prefix, Sequence[float]] = {}
    # prefix -> (log p that it ends in blank, ... in its last unit, from the language model)
    beams: dict[Prefix, tuple[float, float, float]] = {(): (0.0, NEVER, 0.0)}
    for frame in log_probs:
        if rows is not None:
            asked = [prefix for prefix in beams if prefix not in row_of]
            if asked:
                row_of.update(zip(asked, rows(asked)))
        following: dict[Prefix, tuple[float, float, float]] = {}

        def add(prefix: Prefix, in_blank: float, in_unit: float, fusion: float,
                following: dict[Prefix, tuple[float, float, float]] = following) -> None:
            old = following.get(prefix, (NEVER, NEVER, fusion))
            following[prefix] = (numpy.logaddexp(old[0], in_blank),
                                 numpy.logaddexp(old[1], in_unit), fusion)

        best_units = [unit for unit in numpy.argsort(-frame)[:units].tolist() if unit != blank]
        for prefix, (in_blank, in_unit, fusion) in beams.items():
            both = numpy.logaddexp(in_blank, in_unit)
            last = prefix[-1] if prefix else blank
            add(prefix, both + frame[blank], in_unit + frame[last] if prefix else NEVER, fusion)
            word = open_word(prefix)
            for unit in best_units:
                if (word not in WORDS) if unit == space else (word + UNITS[unit] not in BEGINNINGS):
                    continue
                gained = weight * row_of[prefix][unit] if rows is not None else 0.0
                gained += word_bonus if unit == space else 0.0
                source = in_blank if unit == last else both
                add((*prefix, unit), NEVER, source + frame[unit], fusion + gained)
        ranked = sorted(following.items(), reverse=True,
                        key=lambda item: numpy.logaddexp(*item[1][:2]) + item[1][2])
        beams = dict(ranked[:beam])
    prefixes = [prefix for prefix in beams if open_word(prefix) in WORDS] or list(beams)
    last_words = ends(prefixes) if ends is not None else [0.0] * len(prefixes)
    totals = [numpy.logaddexp(*beams[prefix][:2]) + beams[prefix][2] + weight * end
              for prefix, end in zip(prefixes, last_words)]
    best = prefixes[int(numpy.argmax(totals))]
    return "".join(UNITS[unit] for unit in best).replace(SPACE, " ").strip()


def open_word(prefix: Prefix) -> str:
    """The characters since the last space."""
    return "".join(UNITS[unit] for unit in prefix).rpartition(SPACE)[2]
