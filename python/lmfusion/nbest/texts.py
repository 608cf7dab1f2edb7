"""Texts alone, and pairs of a text and a score.

A pair is (text, score) or (score, text), as a tuple or, after JSON, as a list. Its score is taken
for a sum of natural logarithms (`log_base=` says otherwise). Texts alone have no score: the
language model and the words decide.
"""

from __future__ import annotations

import re
from typing import Any

from lmfusion.nbest.hypothesis import Form, Options, is_number, number

_SPELLED = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?|-\d+|-?inf|nan", re.IGNORECASE)


def _is_pair(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    first, second = value
    if isinstance(first, str):
        return second is None or is_number(second)
    return isinstance(second, str) and is_number(first)


def has_spelled_score(value: Any) -> bool:
    """Whether it is two texts of which one, and not the other, spells a fraction or a number
    below 0, as scores of files do that were read as text."""
    if not (isinstance(value, (list, tuple)) and len(value) == 2
            and all(isinstance(part, str) for part in value)):
        return False
    return sum(_SPELLED.fullmatch(part.strip()) is not None for part in value) == 1


def _score(pair: Any, options: Options) -> Any:
    score = pair[1] if isinstance(pair[0], str) else pair[0]
    return options.nats(number(score)) if is_number(score) else score


TEXT = Form("text", lambda value: isinstance(value, str), lambda text: text, lambda *_: 0.0)
PAIR = Form("pair of text and score", _is_pair,
            lambda pair: pair[0] if isinstance(pair[0], str) else pair[1], _score)
