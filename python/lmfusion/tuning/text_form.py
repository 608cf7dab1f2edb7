"""How a hypothesis is written before the language model reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmfusion import LMFusionScorer

CASINGS = ("none", "lower", "sentence")
END_MARKS = (".", "?", "!")
BARE_BUT = 0.1  # of the texts
_FIRST_PERSON = re.compile(r"(?<!\S)i(?=('(m|ll|d|ve))?[.,?!;:]*(?!\S))")


@dataclass(frozen=True, order=True)
class TextForm:
    """A text form; the default leaves texts as they are.

    Attributes:
        casing: "none", "lower", or "sentence" (as the scorer's casing of that name; a text all in
            capitals is put into lower case first).
        final: put after a text that ends in none of . ? !, "" or "." mostly.
        prompt: the text before every hypothesis, whose own log p is not counted.
        bos: the start token, as the scorer's option.
        history: so many of the recogniser's answers to the utterances before stand between the
            prompt and a text, not counted either (`lmfusion.tuning.history`).
        session: a pattern of `re`; what it finds in an utterance's name is the session whose
            answers count. "": all utterances are one session.
    """

    casing: str = "none"
    final: str = ""
    prompt: str = ""
    bos: str = "auto"
    history: int = 0
    session: str = ""

    def __post_init__(self) -> None:
        if self.casing not in CASINGS:
            raise ValueError(f"casing = {self.casing!r} of a text form; one of "
                             f"{', '.join(CASINGS)} expected")
        if self.history < 0:
            raise ValueError(f"history = {self.history} of a text form; a number of utterances, at "
                             "least 0, expected")
        try:
            re.compile(self.session)
        except re.error as error:
            raise ValueError(f"session = {self.session!r} of a text form is no pattern: "
                             f"{error}") from None

    def text(self, text: str) -> str:
        """What the language model reads, without the prompt."""
        if self.casing == "lower" or (self.casing == "sentence" and text.isupper()):
            text = text.lower()
        if self.casing == "sentence":
            text = sentence_case(text)
        ended = not text or text.endswith(END_MARKS)
        return text if ended else text + self.final

    def log_probs(self, scorer: LMFusionScorer, texts: Sequence[str],
                  history: Sequence[str] = ()) -> list[float]:
        """log p of hypotheses in this form, nats; `scorer` has casing "none" and this `bos`.

        Args:
            history: what was said before, oldest first, in this form.
        """
        return scorer.score_texts([self.text(text) for text in texts], prompt=self.prompt,
                                  context=history)

    def __str__(self) -> str:
        parts = [{"none": "as it is", "lower": "lower case", "sentence": "sentence case"}[
            self.casing]]
        parts += [f"final {self.final!r}"] if self.final else []
        parts += [f"after a prompt of {len(self.prompt.split())} words"] if self.prompt else []
        parts += [f"bos {self.bos}"] if self.bos != "auto" else []
        parts += [f"after the {self.history} answers before" if self.history > 1 else
                  "after the answer before"] if self.history else []
        return ", ".join(parts)

    def to_dict(self) -> dict[str, str | int]:
        """By name, for JSON."""
        return asdict(self)


def forms(casings: Iterable[str] = ("none", "sentence"), finals: Iterable[str] = ("", "."),
          prompts: Iterable[str] = ("",), starts: Iterable[str] = ("auto",),
          histories: Iterable[int] = (0,), session: str = "") -> list[TextForm]:
    """All combinations, the plainest first; `session` is of those with a history."""
    return [TextForm(casing, final, prompt, bos, history, session if history else "")
            for history in dict.fromkeys(histories) for bos in dict.fromkeys(starts)
            for prompt in dict.fromkeys(prompts) for casing in dict.fromkeys(casings)
            for final in dict.fromkeys(finals)]


def sentence_case(text: str) -> str:
    """"i think i'm late" -> "I think I'm late": what the scorer's casing="sentence" does."""
    text = _FIRST_PERSON.sub("I", text)
    first = next((place for place, letter in enumerate(text) if letter.isalnum()), 0)
    return text[:first] + text[first:first + 1].upper() + text[first + 1:]


def is_bare(texts: Iterable[str]) -> bool:
    """Whether texts are written as most recognisers do, nearly all in one case without end marks
    (a word such as "mr." may end one)."""
    some = [text for text in texts if text.strip()]
    few = BARE_BUT * len(some)
    return bool(some) and sum(text.endswith(END_MARKS) for text in some) <= few and min(
        sum(text != text.lower() for text in some), sum(not text.isupper() for text in some)) <= few
