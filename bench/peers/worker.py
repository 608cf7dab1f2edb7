"""Each system runs in a process of its own, which is stopped while another one runs."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from peers.calls import Call
from peers.model_files import ModelFiles
from peers.resident import forget_peak, release_free_memory, resident_bytes
from peers.systems import SYSTEMS


class Unavailable(RuntimeError):
    """A system that cannot run here; the text is what its row says."""


@dataclass(frozen=True)
class Round:
    """All calls, once."""

    call_seconds: list[float]
    scores: list[list[float]]  # [calls][candidates], nats
    tokens_computed: int
    forwards: int
    peak_bytes: int  # of the process since its model was loaded
    weight_bytes: int  # held by the system; 0: it does not say


class Worker:
    """A process with one system in it."""

    def __init__(self, system: str, files: ModelFiles, calls: Sequence[Call],
                 quality: Sequence[Call], *, threads: int, options: Mapping[str, object],
                 environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        settings = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
                    **environment}
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            self._process = context.Process(target=_serve, daemon=True, args=(
                theirs, system, files, list(calls), list(quality), threads, dict(options)))
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()
        self._receive()
        self._signal(signal.SIGSTOP)

    def run(self, what: str, count: int = 0) -> Round:
        """Scores "calls" (the first `count`, 0: all) or "quality" texts.

        Raises:
            Unavailable: the system failed; it is over.
        """
        self._signal(signal.SIGCONT)
        try:
            self._connection.send((what, count))
        except BrokenPipeError:
            pass  # it has ended; what is received says how
        answer = self._receive()
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        self._connection.close()  # it ends by itself
        self._signal(signal.SIGCONT)
        self._process.join(timeout=10)
        self._process.kill()
        self._process.join()

    def _receive(self) -> Round:
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            why = " (killed, as for want of memory)" if code == -signal.SIGKILL else ""
            answer = f"failed: its process ended with code {code}{why}"
        if isinstance(answer, str):
            self.close()
            raise Unavailable(answer)
        return answer

    def _signal(self, number: signal.Signals) -> None:
        if self._process.is_alive():
            os.kill(self._process.pid, number)


def _serve(connection: Connection, name: str, files: ModelFiles, calls: list[Call],
           quality: list[Call], threads: int, options: dict[str, object]) -> None:
    try:
        system = SYSTEMS[name].make(files, threads, **options)
        for call in calls[:3]:
            system.score(call)
        _forget_peak()
        connection.send(None)
        while True:
            what, count = connection.recv()
            connection.send(_run(system, quality if what == "quality" else calls[:count or None]))
    except ImportError as error:
        connection.send(f"not installed: {error.name or error}")
    except EOFError:
        pass  # the benchmark is over
    except Exception as error:
        connection.send(f"failed: {type(error).__name__}: {error}")


def _run(system: object, calls: list[Call]) -> Round:
    tokens, forwards = system.tokens_computed, system.forwards
    seconds, scores = [], []
    for index, call in enumerate(calls):
        if index == 0 or call.utterance != calls[index - 1].utterance:
            system.new_utterance()
        start = time.perf_counter()
        scores.append(list(system.score(call)))
        seconds.append(time.perf_counter() - start)
    return Round(seconds, scores, system.tokens_computed - tokens, system.forwards - forwards,
                 resident_bytes("VmHWM"), getattr(system, "weight_bytes", 0))


def _forget_peak() -> None:
    """What loading took is not what running takes."""
    gc.collect()
    release_free_memory()
    forget_peak()
