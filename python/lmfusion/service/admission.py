"""Places in the scorer: a thread each, and a queue before them that has an end.

Calls of several threads are joined by the scorer itself: what waits while a forward pass runs goes
through the model together, and shares the token tree.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from lmfusion.service.body import GONE
from lmfusion.service.limits import Limits
from lmfusion.service.refusal import Refusal

Result = TypeVar("Result")


class Admission:
    """Runs calls in threads, so many at a time, and refuses what would wait for too long."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places = anyio.CapacityLimiter(limits.concurrency)
        self._seconds = 0.1  # of a call, smoothed

    @property
    def running(self) -> int:
        """Calls that have a place."""
        return int(self._places.borrowed_tokens)

    @property
    def waiting(self) -> int:
        """Calls that wait for one."""
        return int(self._places.statistics().tasks_waiting)

    async def run(self, work: Callable[[float], Result],
                  gone: Callable[[], Awaitable[object]]) -> Result:
        """work(seconds that it waited) in a thread.

        Args:
            work: what to run.
            gone: returns when nobody wants the result any more. A call that still waits is then
                dropped; one that runs is finished, and what it computed stays in the tree.

        Raises:
            Refusal: the queue is full, or the client left.
        """
        if self.running >= self._limits.concurrency and self.waiting >= self._limits.queue:
            raise Refusal(429, "Busy", f"{self.waiting} requests are waiting; try again later",
                          retry_after=self._retry_after())
        arrived = time.monotonic()
        results: list[Result] = []
        failures: list[Exception] = []
        async with anyio.create_task_group() as group:
            async def leave() -> None:
                await gone()
                group.cancel_scope.cancel()

            def timed() -> Result:
                begin = time.monotonic()
                result = work(begin - arrived)
                self._seconds += 0.1 * (time.monotonic() - begin - self._seconds)
                return result

            group.start_soon(leave)
            try:
                results.append(await anyio.to_thread.run_sync(timed, limiter=self._places))
            except Exception as error:  # outside of the group, which would wrap it
                failures.append(error)
            group.cancel_scope.cancel()
        if failures:
            raise failures[0]
        if not results:
            raise Refusal(GONE, "Gone", "the client left")
        return results[0]

    def _retry_after(self) -> int:
        rounds = (self.waiting + self.running) / self._limits.concurrency
        return max(1, min(60, math.ceil(rounds * self._seconds)))
