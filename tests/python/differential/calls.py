"""Calls that score: how each kind is asked, and what its result must be."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lmfusion

from differential.cases import DEADLINES, Step
from differential.expected import Number

if TYPE_CHECKING:
    from differential.machine import Machine

ENDINGS = [".", "?", ""]


@dataclass(frozen=True)
class Call:
    """`ask` may run in a thread beside others; `check` gets what it returned."""

    ask: Callable[[Machine, Step], Any]
    check: Callable[[Machine, Step, Any], object]


def asked(machine: Machine, step: Step) -> tuple[list[str], list[list[str]]]:
    contexts = texts(machine, step)
    return contexts, [list(step.words[n % 2:]) for n in range(len(contexts))]


def texts(machine: Machine, step: Step) -> list[str]:
    return [machine.case.texts[i] for i in step.texts]


def before(step: Step) -> dict[str, Any]:
    """What stands before every text, and whose cache it is."""
    return {"context": step.context, "prompt": step.prompt, "cache_namespace": step.name}


def wanted(machine: Machine, step: Step, *, weighed: bool) -> list[Number]:
    settings = machine.case.settings
    history = machine.expected.history(step.prompt, step.context)
    contexts, words = asked(machine, step)
    numbers = [machine.expected.word(context, word, step.join, history)
               for context, row in zip(contexts, words) for word in row]
    return [(settings.weight * number + settings.bonus, size)
            for number, size in numbers] if weighed else numbers


# Candidates.

def ask_score(machine: Machine, step: Step) -> Any:
    contexts, words = asked(machine, step)
    return machine.scorer.score_continuations(contexts, words, join=step.join, **before(step))


def check_score(machine: Machine, step: Step, rows: list[list[float | None]]) -> list[float]:
    assert [len(row) for row in rows] == [len(row) for row in asked(machine, step)[1]]
    return machine.compare(lambda: wanted(machine, step, weighed=True),
                           list(itertools.chain(*rows)), machine.case.settings.weight)


def ask_log_probs(machine: Machine, step: Step) -> Any:
    contexts, words = asked(machine, step)
    return machine.scorer.log_probs(contexts, words, join=step.join, base=10, **before(step))


def check_log_probs(machine: Machine, step: Step, rows: list[list[float]]) -> None:
    machine.compare(lambda: wanted(machine, step, weighed=False),
                    [score * math.log(10) for score in itertools.chain(*rows)])


def ask_floor(machine: Machine, step: Step) -> Any:
    """Floors between the scores, found by asking: one, or one a candidate."""
    contexts, words = asked(machine, step)
    rows = ask_score(machine, step)
    flat = sorted(itertools.chain(*rows))
    floor: Any = flat[step.number % len(flat)] + 0.01 if flat else 0.0
    if step.number % 2:
        draw = random.Random(step.number)
        floor = [[score + draw.choice([-1.0, -0.01, 0.01, 3.0]) for score in row] for row in rows]
    return rows, floor, machine.scorer.score_continuations(
        contexts, words, floor=floor, join=step.join, **before(step))


def check_floor(machine: Machine, step: Step, found: Any) -> None:
    full, floor, rows = found
    numbers = iter(check_score(machine, step, full))
    for n, row in enumerate(rows):
        for i, score in enumerate(row):
            number = next(numbers)
            least = floor[n][i] if isinstance(floor, list) else floor
            if abs(number - least) < 0.005:
                continue
            assert (score == -math.inf) == (number < least), machine.where()
            assert score == -math.inf or abs(score - number) < 0.005, machine.where()
            machine.world.scores += 1


def ask_deadline(machine: Machine, step: Step) -> Any:
    contexts, words = asked(machine, step)
    return machine.scorer.score_continuations(
        contexts, words, deadline=DEADLINES[step.number % len(DEADLINES)], join=step.join,
        **before(step))


def check_deadline(machine: Machine, step: Step, rows: Any) -> None:
    """What came in time is right; all of it came where there was time."""
    found = list(itertools.chain(*rows))
    deadline = DEADLINES[step.number % len(DEADLINES)]
    assert deadline > 0 or found.count(None) == len(found)
    assert deadline < 1 or None not in found

    def those() -> list[Number]:
        return [number for number, score in zip(wanted(machine, step, weighed=True), found)
                if score is not None]

    machine.compare(those, [score for score in found if score is not None],
                    machine.case.settings.weight)


def ask_explain(machine: Machine, step: Step) -> Any:
    return machine.scorer.explain(texts(machine, step)[0], (*step.words, "cat")[0], join=step.join,
                                  cache_namespace=step.name)


def check_explain(machine: Machine, step: Step, found: Any) -> None:
    expected, context, word = machine.expected, texts(machine, step)[0], (*step.words, "cat")[0]
    machine.compare(lambda: [expected.word(context, word, step.join)], [found.candidate_log_prob])
    forms = [text for text, _ in expected.forms(context, word,
                                                step.join or machine.case.settings.join)]
    assert found.text in forms and [form.text for form in found.forms] == forms


def ask_states(machine: Machine, step: Step) -> Any:
    states = lmfusion.StateScorer(machine.scorer, join=step.join, **before(step))
    state, found = states.start(texts(machine, step)[0]), []
    for word in step.words[:3]:
        context = state.text
        log_prob, state = states.score(state, word)
        found.append((context, word, log_prob))
    return found, state.text, states.finish(state)


def check_states(machine: Machine, step: Step, result: Any) -> None:
    expected, (found, whole, end) = machine.expected, result
    history = expected.history(step.prompt, step.context)
    machine.compare(lambda: [*(expected.word(context, word, step.join, history)
                               for context, word, _ in found),
                             expected.ending(whole, "", history)],
                    [*(log_prob for _, _, log_prob in found), end])


# Texts.

def ask_texts(machine: Machine, step: Step) -> Any:
    return machine.scorer.score_texts(texts(machine, step), eos=step.kind == "eos", **before(step))


def check_texts(machine: Machine, step: Step, found: list[float]) -> None:
    expected = machine.expected
    history = expected.history(step.prompt, step.context)
    machine.compare(lambda: [expected.text(text, eos=step.kind == "eos", history=history)
                             for text in texts(machine, step)], found)


def ask_endings(machine: Machine, step: Step) -> Any:
    return machine.scorer.score_endings(texts(machine, step), ENDINGS, **before(step))


def check_endings(machine: Machine, step: Step, rows: list[list[float]]) -> None:
    expected = machine.expected
    history = expected.history(step.prompt, step.context)
    machine.compare(lambda: [expected.ending(text, ending, history)
                             for text in texts(machine, step) for ending in ENDINGS],
                    list(itertools.chain(*rows)))


def ask_token_log_probs(machine: Machine, step: Step) -> Any:
    return machine.scorer.token_log_probs(texts(machine, step), cache_namespace=step.name)


def check_token_log_probs(machine: Machine, step: Step, rows: Any) -> None:
    expected = machine.expected
    cased = [expected.cased(text) for text in texts(machine, step)]
    convert = machine.world.tokenizer.convert_ids_to_tokens
    for text, row in zip(cased, rows, strict=True):
        pieces = convert(expected.ids(text))
        assert [piece for piece, _ in row] == pieces[len(pieces) - len(row):]
    machine.compare(lambda: [(number, 1) for text in cased for number in expected.tokens(text)],
                    [log_prob for row in rows for _, log_prob in row])


def ask_word_log_probs(machine: Machine, step: Step) -> Any:
    return machine.scorer.word_log_probs(texts(machine, step), cache_namespace=step.name)


def check_word_log_probs(machine: Machine, step: Step, rows: Any) -> None:
    """The words of a text sum to the text."""
    expected = machine.expected
    machine.compare(lambda: [expected.text(text) for text in texts(machine, step)],
                    [math.fsum(log_prob for _, log_prob in row) for row in rows])


def ask_token_paths(machine: Machine, step: Step) -> Any:
    """The layer below texts, with nothing before the ids."""
    paths = [[1, *machine.expected.ids(text)] for text in texts(machine, step)]
    return paths, machine.scorer.score_token_paths(paths, [1] * len(paths),
                                                   cache_namespace=step.name)


def check_token_paths(machine: Machine, step: Step, found: Any) -> None:
    paths, rows = found
    known = machine.world.rows

    def numbers() -> list[Number]:
        nodes = [(known.node(path[:i]), path[i]) for path in paths for i in range(1, len(path))]
        known.needed.update(node for node, _ in nodes if node not in known.row)
        return [(known.row[node].item(token) if node in known.row else 0.0, 1)
                for node, token in nodes]

    machine.compare(numbers, list(itertools.chain(*rows)))


CALLS = {
    "score": Call(ask_score, check_score), "log_probs": Call(ask_log_probs, check_log_probs),
    "floor": Call(ask_floor, check_floor), "deadline": Call(ask_deadline, check_deadline),
    "explain": Call(ask_explain, check_explain), "states": Call(ask_states, check_states),
    "texts": Call(ask_texts, check_texts), "eos": Call(ask_texts, check_texts),
    "endings": Call(ask_endings, check_endings),
    "token_log_probs": Call(ask_token_log_probs, check_token_log_probs),
    "word_log_probs": Call(ask_word_log_probs, check_word_log_probs),
    "token_paths": Call(ask_token_paths, check_token_paths)}
