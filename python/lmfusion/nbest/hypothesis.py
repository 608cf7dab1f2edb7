"""What every n-best shape is read into: utterances of hypotheses, each a text and a score."""

from __future__ import annotations

import decimal
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmfusion.shown import shown


@dataclass(frozen=True)
class Hypothesis:
    """One hypothesis of an utterance. Its repr has no text: it may stand in a log."""

    text: str = field(repr=False)  # what was recognised, without space around it
    score: float  # the recogniser's own: a sum of natural logarithms; -inf where missing="last"
    given: Any = field(repr=False)  # the hypothesis as it was given; a file's own lines of it
    ngram: float = 0.0  # of another language model, where the shape has it apart; nats


@dataclass(frozen=True)
class Utterance:
    """All hypotheses of an utterance, in the order in which they were given."""

    name: str | None  # its id, where the shape has one
    hypotheses: list[Hypothesis]
    # Said before, oldest first, where `tuning.history` looked for it.
    history: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Options:
    """How to read; docs/nbest.md has a line on each, `lmfusion.nbest.read` too."""

    missing: str | None = None
    text: Callable[[Any], str] | None = None
    token_count: Callable[[str], int] | None = None
    log_base: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    beam_size: int | None = None
    scores: Sequence[str | Path] = ()
    costs: bool | None = None
    speaker: int | None = None

    def __post_init__(self) -> None:
        if self.missing not in (None, "last"):
            raise ValueError(f'missing = {self.missing!r}; "last", or None to refuse what has no '
                             "score")
        if self.log_base is not None and not self.log_base > 1:
            raise ValueError(f"log_base = {self.log_base!r}; a base above 1 expected, as 10")
        if self.beam_size is not None and self.beam_size < 1:
            raise ValueError(f"beam_size = {self.beam_size}; the number of lines of an utterance, "
                             "at least 1, expected")

    def nats(self, score: float) -> float:
        """A score of a shape that does not say its base, in nats."""
        return score if self.log_base is None else score * math.log(self.log_base)


@dataclass(frozen=True)
class Form:
    """What one hypothesis of a decoder looks like.

    Attributes:
        name: for messages and docs/nbest.md.
        matches: whether something is such a hypothesis.
        text: what was recognised, never a reference; None where there are only ids.
        score: the sum of natural logarithms; None where there is none.
        ngram: the same of another language model, of shapes that have it apart from the score.
    """

    name: str
    matches: Callable[[Any], bool]
    text: Callable[[Any], str | None]
    score: Callable[[Any, Options], Any]
    ngram: Callable[[Any, Options], Any] | None = None


def is_number(value: Any) -> bool:
    """Python's and numpy's numbers, arrays and tensors of one element; no bool and no text."""
    if isinstance(value, (bool, str, bytes)):
        return False
    if isinstance(value, (numbers.Real, decimal.Decimal)):
        return True
    shape = getattr(value, "shape", None)
    return hasattr(value, "__float__") and shape is not None and math.prod(shape) == 1


def number(value: Any) -> float:
    """What `is_number` knows as one."""
    return float(value.item() if getattr(value, "ndim", 0) else value)


def is_missing(value: Any) -> bool:
    """Nothing, as Python or pandas say it."""
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def joined(text: Any) -> str | None:
    """A text, or words to put together; None for anything else."""
    if isinstance(text, str):
        return text
    if isinstance(text, (list, tuple)) and all(isinstance(word, str) for word in text):
        return " ".join(text)
    return None


def value_of(hypothesis: Any, name: str) -> Any:
    """A mapping's entry or an object's attribute; None where there is none."""
    if isinstance(hypothesis, Mapping):
        return hypothesis.get(name)
    return getattr(hypothesis, name, None)


def has(hypothesis: Any, *names: str) -> bool:
    """Whether a mapping has all these entries, an object all these attributes."""
    if isinstance(hypothesis, Mapping):
        return all(name in hypothesis for name in names)
    return all(hasattr(hypothesis, name) for name in names)


def read_hypothesis(given: Any, form: Form, where: str, options: Options) -> Hypothesis:
    """One hypothesis of a known form.

    Args:
        where: "utterance 2, hypothesis 1", for messages.

    Raises:
        ValueError: it has no text, no score, or a score that is no number.
    """
    text = form.text(given) if options.text is None else options.text(given)
    if not isinstance(text, str):
        raise ValueError(f"{where} ({form.name}) has no text, only ids perhaps; give "
                         "text=, a function of a hypothesis that makes its text")
    score = form.score(given, options)
    ngram = 0.0 if form.ngram is None else checked(form.ngram(given, options),
                                                   f"{where} ({form.name}), n-gram", options)
    return Hypothesis(text.strip(), checked(score, f"{where} ({form.name})", options), given, ngram)


def checked(score: Any, where: str, options: Options) -> float:
    """A score as a float; -inf where it is missing and may be.

    Raises:
        ValueError: it is missing, NaN or +infinity, and `missing` is not "last".
    """
    if is_missing(score):
        score = None
    if score is not None and not is_number(score):
        raise ValueError(f"{where}: the score, {shown(score)}, is not a number")
    value = math.nan if score is None else number(score)
    if math.isnan(value) or value == math.inf:
        if options.missing == "last":
            return -math.inf
        what = "no score" if score is None else f"the score {value}"
        raise ValueError(f'{where} has {what}; give it one, or missing="last" to put such '
                         "hypotheses last")
    return value
