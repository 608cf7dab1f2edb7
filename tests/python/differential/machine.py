"""Does a case: makes its calls, one after another or beside each other, and compares."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import lmfusion

from differential.cache_calls import CACHE_CALLS
from differential.calls import CALLS
from differential.cases import Case, Step
from differential.expected import Expected, Number
from differential.searches import SEARCHES
from differential.worlds import World

TOLERANCE = 1e-4  # nats per scored token
KINDS = {**CALLS, **SEARCHES, **CACHE_CALLS}


class Machine:
    """Every expected number is asked twice: first to note which texts Hugging Face must see, then,
    after all of them went through it, to have the number."""

    def __init__(self, world: World, case: Case, folder: Path) -> None:
        self.world, self.case, self.folder = world, case, folder
        self.expected = Expected(world, case.settings)

    def run(self) -> None:
        self.world.begin_case()
        for path in self.folder.glob("*.cache"):
            path.unlink()
        self.scorer = self.open()
        for step in self.case.steps:
            self.do(step)
        self.close()

    def do(self, step: Step) -> None:
        """One call, or several in threads of their own; then each result is looked at."""
        steps = [step, *step.more] if step.kind != "threads" else list(step.more)
        found: list[object] = [None] * len(steps)

        def ask(i: int) -> None:
            try:
                found[i] = KINDS[steps[i].kind].ask(self, steps[i])
            except BaseException as error:
                found[i] = error

        if len(steps) == 1:
            ask(0)
        else:
            threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(steps))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for each, result in zip(steps, found):
            if isinstance(result, BaseException):
                raise result
            KINDS[each.kind].check(self, each, result)

    def open(self) -> lmfusion.LMFusionScorer:
        settings = self.case.settings
        options = {"mode": settings.mode, "device": settings.device, "boundary": settings.boundary,
                   "bos": settings.bos, "join": settings.join, "weight": settings.weight,
                   "special_tokens": settings.special_tokens,
                   "word_insertion_bonus": settings.bonus,
                   "casing": str.upper if settings.casing == "upper" else settings.casing,
                   "max_batch_tokens": settings.max_batch_tokens,
                   "max_context_length": settings.max_context_length}
        if settings.spare_tokens is not None and self.world.kept:
            # No text of these cases has more tokens.
            options["kv_cache_bytes"] = (self.longest() + settings.spare_tokens) * (
                self.world.bytes_a_token(settings.device))
        return lmfusion.LMFusionScorer(self.world.bundle, **options)

    def close(self) -> None:
        stats = self.scorer.stats()
        if self.world.kept:
            assert stats.cache_bytes <= stats.cache_bytes_limit
        self.world.evictions += stats.evictions

    def longest(self) -> int:
        """Tokens of the longest text that any call can need, and a few more."""
        steps = [each for step in self.case.steps for each in (step, *step.more)]
        size = 0
        for step in steps:
            history = self.expected.history(step.prompt, step.context)
            words = " ".join(sorted([".", *step.words], key=len)[-3:])  # as states take them
            for i in step.texts:
                text = self.case.texts[i]
                whole = f"{history} {text} {words}."
                size = max(size, *(len(self.expected.ids(form)) for form in (whole, whole.upper())))
        return max(24, size + 8)

    @property
    def keeps(self) -> bool:
        return self.world.kept and self.case.settings.mode == "tree"

    def compare(self, wanted: Callable[[], Sequence[Number]], got: Sequence[float | None],
                unit: float = 1.0) -> list[float]:
        """unit: of the tolerance, where numbers are weighed."""
        wanted()
        self.world.rows.ask()
        numbers = wanted()
        assert len(numbers) == len(got)
        for (number, size), mine in zip(numbers, got):
            assert mine is not None
            difference = abs(number - mine) / max(1, size) / max(1.0, unit)
            assert difference <= TOLERANCE, (
                f"{number} by Hugging Face, {mine} here, over {size} tokens; {self.where()}")
            self.world.largest = max(self.world.largest, difference)
        self.world.scores += len(numbers)
        return [number for number, _ in numbers]

    def where(self) -> str:
        return f"LMFUSION_TEST_SEED={self.world.seed} ({self.world.architecture})"
