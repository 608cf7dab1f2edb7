"""Calls that search for the best, and leave what cannot be it."""

from __future__ import annotations

import itertools
import math
import random
from typing import TYPE_CHECKING, Any

import lmfusion

from differential.calls import Call, before, texts
from differential.cases import LABELS, Step
from differential.expected import Number, separator

if TYPE_CHECKING:
    from differential.machine import Machine

def base_scores(machine: Machine, step: Step) -> list[float]:
    draw = random.Random(step.number)
    return [draw.choice([-math.inf, *(x / 4 for x in range(-20, 20))]) for _ in step.texts]


def ask_best(machine: Machine, step: Step) -> Any:
    """bonus: words are counted as `split` does."""
    return machine.scorer.best([texts(machine, step)], [base_scores(machine, step)],
                               n=1 + step.number % 3, eos=step.number % 2 == 1, **before(step))[0]


def check_best(machine: Machine, step: Step, found: Any) -> None:
    settings, expected = machine.case.settings, machine.expected
    history = expected.history(step.prompt, step.context)
    base = base_scores(machine, step)

    def totals() -> list[Number]:
        numbers = [expected.text(text, eos=step.number % 2 == 1, history=history)
                   for text in texts(machine, step)]
        return [(score + settings.weight * number + settings.bonus * len(text.split()), size)
                for (number, size), score, text in zip(numbers, base, texts(machine, step))]

    totals()
    machine.world.rows.ask()
    right = totals()
    assert sorted(each.index for each in (*found.best, *found.beaten)) == list(range(len(right)))
    ranked = sorted((number for number, _ in right), reverse=True)
    near = 0.01
    for each, total in zip(found.best, ranked):
        assert each.exact and found.gap == 0
        assert each.total == total or abs(each.total - total) < near, machine.where()
    for each in found.beaten:
        assert each.total >= right[each.index][0] - near, machine.where()
    machine.compare(lambda: [totals()[each.index] for each in found.best
                             if each.total > -math.inf],
                    [each.total for each in found.best if each.total > -math.inf], settings.weight)


def lattice(step: Step) -> lmfusion.lattice.Lattice:
    draw = random.Random(step.number)
    arcs = [lmfusion.lattice.Arc(start, end, draw.choice(LABELS), -draw.randrange(24) / 4,
                                 -draw.randrange(8) / 4)
            for start, end in itertools.combinations(range(5), 2) for _ in range(2)]
    return lmfusion.lattice.Lattice(arcs, {4: (0.0, 0.0), 3: (-1.0, 0.0)}, 0, "random")


def ask_lattice(machine: Machine, step: Step) -> Any:
    return machine.scorer.best_path(lattice(step), n=2, cache_namespace=step.name,
                                    paths_a_call=1 + step.number % 4)


def check_lattice(machine: Machine, step: Step, found: Any) -> None:
    """Of all paths, each a whole text by Hugging Face; word by word, as a decoder says them."""
    settings, expected, graph = machine.case.settings, machine.expected, lattice(step)
    best: dict[tuple[str, ...], float] = {}

    def walk(node: int, words: tuple[str, ...], score: float) -> None:
        if node in graph.finals:
            whole = score + sum(graph.finals[node]) + settings.bonus * len(words)
            best[words] = max(whole, best.get(words, -math.inf))
        for arc in graph.arcs:
            if arc.start == node:
                walk(arc.end, (*words, arc.label) if arc.label else words,
                     score + arc.acoustic + arc.ngram)

    walk(graph.start, (), 0.0)

    def number(words: tuple[str, ...]) -> Number:
        text, total = "", 0.0
        for word in words:
            total += expected.word(text, word)[0]
            text += separator(text, word, settings.join) + word
        return best[words] + settings.weight * total, 2 * len(text) + 2

    def all_numbers() -> list[Number]:
        return [number(words) for words in best]

    all_numbers()
    machine.world.rows.ask()
    ranked = sorted((total for total, _ in all_numbers()), reverse=True)
    if found.proven:
        for path, total in zip(found.paths, ranked):
            assert abs(path.total - total) < 0.01, machine.where()
    for path in found.paths:
        text = ""
        for word in path.words:
            text += separator(text, word, settings.join) + word
        assert path.text == text, machine.where()
    machine.compare(lambda: [*all_numbers(), *(number(path.words) for path in found.paths)],
                    [*(total for total, _ in all_numbers()), *(path.total for path in found.paths)],
                    settings.weight)
    machine.world.scores -= len(best)


SEARCHES = {"best": Call(ask_best, check_best), "lattice": Call(ask_lattice, check_lattice)}
