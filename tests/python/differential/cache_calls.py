"""Calls that change what a cache holds, each with a call that scores after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmfusion

from differential.calls import Call, ask_score, asked, check_score, texts
from differential.cases import Step

if TYPE_CHECKING:
    from differential.machine import Machine

def ask_selfcheck(machine: Machine, step: Step) -> Any:
    contexts, words = asked(machine, step)
    return machine.scorer.selfcheck(contexts, words, cache_namespace=step.name)


def check_selfcheck(machine: Machine, step: Step, largest: float) -> None:
    assert largest < 1e-4 and machine.scorer.stats().selfcheck_failures == 0


def ask_prime(machine: Machine, step: Step) -> Any:
    if machine.keeps:
        contexts, words = asked(machine, step)
        try:
            machine.scorer.prime(contexts, vocabulary=words[0], join=step.join,
                                 cache_namespace=step.name)
        except lmfusion.CacheBudgetError:
            pass
    return ask_score(machine, step)


def file(machine: Machine, step: Step) -> Path:
    return machine.folder / f"{step.file}.cache"


def ask_save(machine: Machine, step: Step) -> Any:
    rows = ask_score(machine, step)
    if machine.keeps:
        some = texts(machine, step) if step.number % 2 else None
        machine.scorer.save_cache(file(machine, step), contexts=some, cache_namespace=step.name)
    return rows


def ask_load(machine: Machine, step: Step) -> Any:
    if machine.keeps and file(machine, step).exists():
        try:
            machine.scorer.load_cache(file(machine, step), cache_namespace=step.name)
        except lmfusion.CacheBudgetError:
            pass
    return ask_score(machine, step)


def ask_clear(machine: Machine, step: Step) -> Any:
    machine.scorer.clear_cache(*([step.name] if step.number % 2 else []))
    return ask_score(machine, step)


def ask_reopen(machine: Machine, step: Step) -> Any:
    """Another process, which knows the files of the one before."""
    machine.close()
    machine.scorer = machine.open()
    return ask_load(machine, step)


CACHE_CALLS = {
    "selfcheck": Call(ask_selfcheck, check_selfcheck), "prime": Call(ask_prime, check_score),
    "save": Call(ask_save, check_score), "load": Call(ask_load, check_score),
    "clear": Call(ask_clear, check_score), "reopen": Call(ask_reopen, check_score)}
