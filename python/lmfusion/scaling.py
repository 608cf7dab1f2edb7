"""Calls of the scorer on a Ray cluster: an actor a scorer, the answers in the order of the calls.

A call has whole utterances and begins with an empty cache, so its scores are the same on whichever
actor it ends up. A dead actor is started anew, elsewhere if need be, and what it had is asked
again. docs/scaling.md plans what a corpus needs. Needs the extra "ray".
"""

from __future__ import annotations

import collections
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lmfusion.scorer import LMFusionScorer

Call = Sequence[Any]  # texts, or utterances
Score = Callable[[LMFusionScorer, Call], list[Any]]


@dataclass(frozen=True)
class Cluster:
    """Where calls go, and how much of it they take.

    Attributes:
        address: of a running cluster ("auto": the one that this machine belongs to), or "local" for
            one on this machine that ends with the job.
        actors: scorers; None: as many as fit into the cluster's cores and GPUs.
        cpus, gpus: of an actor. torch gets as many threads as cpus.
        in_flight: calls that an actor has at a time, so that none waits for its next.
        retries: of one call, after actors that died.

    Raises:
        ValueError: a number is below what makes sense.
    """

    address: str = "local"
    actors: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    in_flight: int = 2
    retries: int = 10

    def __post_init__(self) -> None:
        if (self.actors is not None and self.actors < 1) or self.in_flight < 1 or (
                self.retries < 0 or self.cpus < 0 or self.gpus < 0
                or self.cpus + self.gpus <= 0):
            raise ValueError(f"{self}: at least one actor, one call in flight, and a core or GPU "
                             "an actor expected")


def scored_on(cluster: Cluster, calls: Iterable[Call], open_scorer: Callable[[], LMFusionScorer],
              score: Score) -> Iterator[list[Any]]:
    """What `score(scorer, call)` returns for every call, in the order of the calls.

    `calls` is read no further than the actors need to stay busy, and what is done waits for what
    was asked before it, up to twice that many calls.

    Args:
        calls: some whole utterances each, or their texts.
        open_scorer: run once by every actor; the model file must be there, on every machine.
        score: log p of what a call has; with `open_scorer`, it is pickled (cloudpickle).

    Raises:
        ConnectionError: there is no cluster at that address.
        Error: a call was lost with its actor more often than `retries`.
        Exception: what `open_scorer` or `score` raises.
    """
    calls = iter(calls)
    first = next(calls, None)
    if first is None:
        return
    import ray
    started = not ray.is_initialized()
    if started:
        more: dict[str, Any] = {"include_dashboard": False} if cluster.address == "local" else {}
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, **more)
    try:
        yield from _scored(ray, cluster, itertools.chain([first], calls), open_scorer, score)
    finally:
        if started:
            ray.shutdown()


class _Worker:
    """What an actor is."""

    def __init__(self, open_scorer: Callable[[], LMFusionScorer], score: Score) -> None:
        self._scorer, self._score = open_scorer(), score

    def run(self, call: Call) -> list[Any]:
        self._scorer.clear_cache()
        return self._score(self._scorer, call)


def _scored(ray: Any, cluster: Cluster, calls: Iterable[Call],
            open_scorer: Callable[[], LMFusionScorer], score: Score) -> Iterator[list[Any]]:
    kind = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_restarts=-1,
                      max_task_retries=cluster.retries)(_Worker)
    actors = [kind.remote(open_scorer, score) for _ in range(cluster.actors or _fitting(
        ray, cluster))]
    asked: collections.deque[Any] = collections.deque()  # answers to come, in order
    running: dict[Any, int] = {}  # answer -> actor
    try:
        for call in calls:
            if len(asked) >= 2 * cluster.in_flight * len(actors):
                yield _answer(ray, asked.popleft())
            actor = _free(ray, running, len(actors), cluster.in_flight)
            answer = actors[actor].run.remote(list(call))
            running[answer] = actor
            asked.append(answer)
        while asked:
            yield _answer(ray, asked.popleft())
    finally:
        for each in actors:
            ray.kill(each)


def _free(ray: Any, running: dict[Any, int], actors: int, in_flight: int) -> int:
    """The actor with the fewest calls; waits until one has less than `in_flight`."""
    while True:
        done, _ = ray.wait(list(running), num_returns=len(running), timeout=0) if running else (
            [], [])
        for answer in done:
            del running[answer]
        busy = collections.Counter(running.values())
        actor = min(range(actors), key=lambda each: busy[each])
        if busy[actor] < in_flight:
            return actor
        ray.wait(list(running), num_returns=1)


def _answer(ray: Any, answer: Any) -> list[Any]:
    from lmfusion.errors import Error
    try:
        return list(ray.get(answer))
    except ray.exceptions.RayTaskError as error:
        raise (error.cause or error) from None
    except ray.exceptions.RayActorError as error:
        cause = getattr(error, "cause", None)
        raise Error("a call was lost with every actor that had it; the cluster's log says what "
                    f"ended them ({cause or type(error).__name__})") from error


def _fitting(ray: Any, cluster: Cluster) -> int:
    there = ray.cluster_resources()
    fits = [there.get(name, 0.0) // need for name, need in (("CPU", cluster.cpus),
                                                            ("GPU", cluster.gpus)) if need]
    return max(1, int(min(fits)))
