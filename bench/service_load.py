"""Load on `lmfusion serve`: many clients, bad neighbours, restarts; against a lone client.

    python bench/service_load.py [--requests FILE] [--calls 640] [--clients 64] [--model FILE]
                                 [--casing sentence] [--json out/service.json]

Every phase asks the same calls, each in a namespace of its own, so each starts cold. Every answer
is compared with a scorer in this process. A Markdown table; status 1 if an answer was lost or
differs. After a restart the service's counters begin anew.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import lmfusion
import make_requests

TOLERANCE = 2e-3  # nats a candidate: 1e-4 a token
BODY_BYTES = 1 << 20
Call = dict[str, Any]


@dataclass
class Phase:
    """What came of one phase."""

    name: str
    clients: int
    expected: int  # calls
    calls: int = 0
    lost: int = 0
    different: int = 0
    largest_difference: float = 0.0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list, repr=False)
    retries: int = 0
    tokens_computed: int = 0
    forwards: int = 0
    bad_requests: int = 0
    bad_answers: int = 0  # bad requests that got another answer than they should

    @property
    def row(self) -> list[str]:
        points = statistics.quantiles(self.latencies or [0.0, 0.0], n=100)
        return [self.name, str(self.clients), f"{self.calls:,}", str(self.lost),
                f"{self.largest_difference:.1e}", f"{self.seconds:.1f}",
                f"{self.calls / self.seconds:.1f}", f"{1000 * points[49]:.0f}",
                f"{1000 * points[98]:.0f}", str(self.retries), f"{self.tokens_computed:,}",
                f"{self.forwards:,}", f"{self.bad_requests} ({self.bad_answers})"]


HEAD = ["phase", "clients", "calls", "lost", "largest difference, nats", "seconds", "calls/s",
        "p50, ms", "p99, ms", "retries", "tokens computed", "forwards",
        "bad requests (not refused)"]


class Process:
    """`lmfusion serve` on a port of its own, which may be killed and started anew."""

    def __init__(self, model: Path, casing: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "lmfusion", "serve", "--model", str(model),
                         "--port", str(self.port), "--casing", casing,
                         "--body-bytes", str(BODY_BYTES)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"{self.url}/healthz")
                return
            except httpx.TransportError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise SystemExit("the service does not start") from None
                time.sleep(0.05)

    def kill(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(60)


def main() -> int:
    arguments = parse()
    model = arguments.model or lmfusion.default_model()
    calls = read_calls(arguments)
    print(f"{len(calls)} calls; expected scores by a scorer here ...", file=sys.stderr, flush=True)
    scorer = lmfusion.LMFusionScorer(model, casing=arguments.casing)
    expected = [ask(scorer, call, "") for call in calls]
    process = Process(model, arguments.casing)
    phases = []
    try:
        for name, clients, nuisance in (
                ("a lone client", 1, None),
                (f"{arguments.clients} clients", arguments.clients, None),
                ("bad neighbours", arguments.clients, bad_neighbours),
                ("SIGTERM and SIGKILL", arguments.clients, restarts)):
            print(f"{name} ...", file=sys.stderr, flush=True)
            phases.append(run_phase(name, clients, process, calls, expected, nuisance))
    finally:
        process.kill(signal.SIGTERM)
    for row in [HEAD, ["---"] * len(HEAD), *(phase.row for phase in phases)]:
        print("| " + " | ".join(row) + " |")
    print(f"\n{phases[1].clients} clients: {phases[0].seconds / phases[1].seconds:.2f} times the "
          "calls a second of a lone one")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps([asdict(phase) for phase in phases]))
    return int(any(phase.lost or phase.different or phase.bad_answers for phase in phases))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=Path, help="default: what make_requests.py makes")
    parser.add_argument("--calls", type=int, default=640)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--casing", default="none")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def read_calls(arguments: argparse.Namespace) -> list[Call]:
    """`calls` of the file, from its start again where it has fewer."""
    if arguments.requests:
        lines = arguments.requests.read_text().splitlines()
        found = [json.loads(line) for line in lines]
    else:
        found = list(made_calls())
    return [found[i % len(found)] for i in range(arguments.calls)]


def made_calls() -> Iterator[Call]:
    generator = random.Random(0)
    sentences = [sentence.split() for sentence in make_requests.SENTENCES]
    vocabulary = sorted({word for sentence in sentences for word in sentence})
    for sentence in sentences:
        for end in range(len(sentence)):
            context = " ".join(sentence[:end])
            contexts = [context, f"{context} {generator.choice(vocabulary)}".strip()]
            words = [[sentence[end], *generator.choices(vocabulary, k=4)] for _ in contexts]
            yield {"contexts": contexts, "candidate_words": words}
        yield {"texts": [" ".join(sentence), " ".join(sentence[::-1])]}


def ask(scorer: Any, call: Call, namespace: str) -> list[Any]:
    """Of a scorer or a client."""
    if "contexts" in call:
        return scorer.log_probs(call["contexts"], call["candidate_words"],
                                cache_namespace=namespace)
    if "endings" in call:
        return scorer.score_endings(call["texts"], call["endings"], cache_namespace=namespace)
    return scorer.score_texts(call["texts"], eos=call.get("eos", False),
                              cache_namespace=namespace)


def run_phase(name: str, clients: int, process: Process, calls: list[Call],
              expected: list[Any], nuisance: Callable[[Process, Phase], Any] | None) -> Phase:
    """All calls, each by whichever client is free."""
    phase = Phase(name, clients, len(calls))
    order = iter(range(len(calls)))
    lock = threading.Lock()
    before = stats(process)

    def work(_: int) -> None:
        with lmfusion.Client(process.url, retry_seconds=120) as client:
            while True:
                with lock:
                    i = next(order, None)
                if i is None:
                    break
                begin = time.monotonic()
                try:
                    scores = ask(client, calls[i], name)
                except Exception as error:
                    print(f"lost: {type(error).__name__} {error}", file=sys.stderr)
                    with lock:
                        phase.lost += 1
                    continue
                seconds = time.monotonic() - begin
                with lock:
                    phase.calls += 1
                    phase.latencies.append(seconds)
                    compare(phase, scores, expected[i])
            with lock:
                phase.retries += client._connection.retries

    begin = time.monotonic()
    with nuisances(nuisance, process, phase), ThreadPoolExecutor(clients) as threads:
        list(threads.map(work, range(clients)))
        phase.seconds = time.monotonic() - begin
    after = stats(process)
    started_anew = nuisance is restarts  # with counters from 0
    phase.tokens_computed = after["tokens_computed"] - (
        0 if started_anew else before["tokens_computed"])
    phase.forwards = after["forwards"] - (0 if started_anew else before["forwards"])
    return phase


def stats(process: Process) -> dict[str, Any]:
    with lmfusion.Client(process.url) as client:
        return client.stats().to_dict()


def compare(phase: Phase, scores: Any, expected: Any) -> None:
    for row, wanted in zip(scores, expected, strict=True):
        for score, want in (zip(row, wanted, strict=True) if isinstance(row, list)
                            else [(row, wanted)]):
            difference = abs(score - want)
            phase.largest_difference = max(phase.largest_difference, difference)
            phase.different += not difference <= TOLERANCE


@contextmanager
def nuisances(nuisance: Callable[[Process, Phase], Any] | None, process: Process, phase: Phase
              ) -> Iterator[None]:
    """One step of the nuisance after another, until the calls are done."""
    if nuisance is None:
        yield
        return
    steps, stop = nuisance(process, phase), threading.Event()

    def go() -> None:
        while not stop.is_set() and next(steps, stop) is not stop:
            pass

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def restarts(process: Process, phase: Phase) -> Iterator[None]:
    """Twice, after a third and two thirds of the calls: in peace, and by force."""
    for share, how in ((1 / 3, signal.SIGTERM), (2 / 3, signal.SIGKILL)):
        while phase.calls + phase.lost < share * phase.expected:
            time.sleep(0.01)
        process.kill(how)
        process.start()
        yield


def bad_neighbours(process: Process, phase: Phase) -> Iterator[None]:
    """Malformed, huge and slow bodies, and clients that vanish, for as long as it takes."""
    generator = random.Random(1)
    slow: list[socket.socket] = []
    while True:
        phase.bad_requests += 4
        phase.bad_answers += post(process, generator.randbytes(1000)) != 400
        phase.bad_answers += post(process, b'{"texts": ["' + b"a" * 2 * BODY_BYTES) not in (413, 0)
        slow.append(raw(process, b"Content-Length: 100000\r\n\r\n{"))  # the rest never comes
        if len(slow) > 100:
            slow.pop(0).close()
        body = b'{"texts": ["' + b"a cat " * 200 + b'"]}'
        raw(process, b"Content-Length: %d\r\n\r\n" % len(body) + body).close()  # gone early
        time.sleep(0.02)
        yield


def post(process: Process, body: bytes) -> int:
    """The status; 0 where the service hung up while the body was sent."""
    try:
        return httpx.post(f"{process.url}/score_texts", content=body, timeout=120).status_code
    except httpx.TransportError:
        return 0


def raw(process: Process, rest: bytes) -> socket.socket:
    """A connection that has sent so much and no more."""
    connection = socket.create_connection(("127.0.0.1", process.port))
    connection.sendall(b"POST /score_texts HTTP/1.1\r\nHost: a\r\n" + rest)
    return connection


if __name__ == "__main__":
    sys.exit(main())
