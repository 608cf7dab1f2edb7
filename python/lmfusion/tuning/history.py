"""What was said before an utterance, as far as an n-best file knows it.

A history is made of the recogniser's own answers: the first hypothesis of each list before, never
of a reference or of what some weights choose. So it is the same while weights are searched and in
whatever folds, and what comes later never changes it.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from lmfusion.nbest import Utterance
from lmfusion.tuning.text_form import TextForm


def with_histories(utterances: Iterable[Utterance], form: TextForm) -> Iterator[Utterance]:
    """Every utterance with the answers before it in its session, oldest first, in the text form.

    At most `form.history` of them; lists without a hypothesis, and answers without a word, say
    nothing. Where `form.session` is a pattern, what it finds in an utterance's name is its session,
    the groups of the pattern where it has any; else all utterances are one session.

    Raises:
        ValueError: the pattern is not found in an utterance's name (its number, without one).
    """
    said: defaultdict[tuple[str, ...], deque[str]] = defaultdict(lambda: deque(
        maxlen=form.history))
    for number, utterance in enumerate(utterances):
        if not form.history:
            yield utterance
            continue
        before = said[_session(utterance, number, form.session)]
        yield replace(utterance, history=tuple(before))
        if utterance.hypotheses and (answer := utterance.hypotheses[0].text.strip()):
            before.append(form.text(answer))


def _session(utterance: Utterance, number: int, pattern: str) -> tuple[str, ...]:
    if not pattern:
        return ()
    name = utterance.name or str(number)
    found = re.search(pattern, name)
    if found is None:
        raise ValueError(f"the pattern of a session, {pattern!r}, is not found in {name!r}, the "
                         f"name of utterance {number}")
    return tuple(group or "" for group in found.groups()) or (found.group(),)
