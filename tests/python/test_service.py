"""The service and its client: what a scorer here says, whatever else goes on there."""

from __future__ import annotations

import json
import logging
import math
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import lmfusion
import pytest
import torch
from lmfusion.service import wire
from lmfusion.service.access import Access, cache_namespace, read_tokens
from lmfusion.service.log import LOGGER, JsonLines
from lmfusion.service.server import Server
from oracle import TOLERANCE, Oracle, check, requests
from service_in_thread import running

SECRET = "my secret diary"


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> lmfusion.LMFusionScorer:
    return lmfusion.LMFusionScorer(bundle, weight=0.7, word_insertion_bonus=1.5)


@pytest.fixture(scope="module")
def server(scorer: lmfusion.LMFusionScorer) -> Iterator[Server]:
    with running(scorer) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[lmfusion.Client]:
    with lmfusion.Client(server.url, retry_seconds=5) as client:
        yield client


def test_every_method_says_what_the_scorer_says(client: lmfusion.Client,
                                                scorer: lmfusion.LMFusionScorer,
                                                oracle: Oracle) -> None:
    contexts, words = requests(1)
    check(oracle, contexts, words, client.score_continuations(contexts, words), 0.7, 1.5)
    texts = [context for context in contexts if context]
    for text, log_prob in zip(texts, client.score_texts(texts)):
        assert log_prob == pytest.approx(oracle.text(text), abs=TOLERANCE * len(text))
    for call in (lambda s: s.score_continuations(contexts, words),
                 lambda s: s.score_continuations(contexts, words, floor=-3.0),
                 lambda s: s.log_probs(contexts, words),
                 lambda s: s.log_probs(contexts, words, floor=[[-5.0] * len(w) for w in words]),
                 lambda s: s.log_probs(contexts, words, floor=-math.inf, cache_namespace="x"),
                 lambda s: s.score_texts(texts), lambda s: s.score_texts(texts, eos=True, base=10),
                 lambda s: s.score_texts_batch(texts, length_normalize=True),
                 lambda s: s.score_endings(texts), lambda s: s.score_endings(texts, ["", "?!"]),
                 lambda s: s.score_endings(texts, base=10),
                 lambda s: s.log_probs(contexts, words, base=2),
                 lambda s: s.token_log_probs(texts, base=2), lambda s: s.word_log_probs(texts),
                 lambda s: s.perplexity(texts), lambda s: s.score_token_paths([[1, 5, 9]], [1]),
                 lambda s: s.aggregate_homophone_scores([-1.0, -2.0]),
                 lambda s: s.score_texts([])):
        here = call(scorer)
        assert call(client) == here  # to the last bit: the tree has them now
    assert math.isnan(client.perplexity([""])[0])
    assert client.prime(["a cat primes"], vocabulary=["on"]) > 0
    assert client.prime(["a cat primes"]) == 0
    assert client.stats().tokens_computed == scorer.stats().tokens_computed
    assert client.stats().to_dict().keys() == scorer.stats().to_dict().keys()
    assert client.description["hidden_size"] == scorer.description["hidden_size"]


def test_weight_and_bonus_may_be_the_clients_own(server: Server, scorer: lmfusion.LMFusionScorer,
                                                 oracle: Oracle) -> None:
    contexts, words = requests(2)
    with lmfusion.Client(server.url, weight=2.0, word_insertion_bonus=-1.0) as client:
        check(oracle, contexts, words, client.score_continuations(contexts, words), 2.0, -1.0)
        kept = client.score_continuations(contexts, words, floor=-20.0)
        for row in kept:
            assert all(score == -math.inf or score >= -20.0 for score in row)
        assert any(score == -math.inf for row in kept for score in row)
        client.weight = -1.0
        with pytest.raises(ValueError, match="floors need a weight above 0"):
            client.score_continuations(["a"], [["b"]], floor=-1.0)
    assert scorer.weight == 0.7


def test_long_calls_are_cut_and_put_together(client: lmfusion.Client, oracle: Oracle,
                                             monkeypatch: pytest.MonkeyPatch,
                                             scorer: lmfusion.LMFusionScorer) -> None:
    contexts, words = requests(3)
    monkeypatch.setattr("lmfusion.client.CANDIDATES", 3)
    before = scorer.stats().calls
    floors = [[-100.0] * len(row) for row in words]
    check(oracle, contexts, words, client.log_probs(contexts, words, floor=floors))
    assert scorer.stats().calls - before > 5


def test_numbers_survive() -> None:
    generator = random.Random(0)
    numbers = [struct.unpack("d", generator.randbytes(8))[0] for _ in range(20_000)]
    numbers += [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan]
    for here, there in zip(numbers, json.loads(wire.to_json(numbers))):
        assert struct.pack("d", wire.number(there)) == struct.pack("d", here) or (
            math.isnan(here) and there == "NaN")
    assert json.loads(wire.to_json({"a": [None, -math.inf]})) == {"a": [None, "-Infinity"]}


def test_errors_are_the_scorers_own_and_show_no_text(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, kv_cache_bytes=40_000)
    with running(scorer) as server, lmfusion.Client(server.url) as client:
        for kind, call in (
                (TypeError, lambda: client.score_texts(SECRET)),
                (TypeError, lambda: client.score_texts([SECRET, 3])),
                (ValueError, lambda: client.log_probs([SECRET], [])),
                (ValueError, lambda: client.log_probs([SECRET], [["a"]], floor=[[1.0, 2.0]])),
                (ValueError, lambda: client.log_probs([SECRET], [["a"]], floor=math.nan)),
                (lmfusion.TextError, lambda: client.score_texts([SECRET + "\ud800"])),
                (lmfusion.CacheBudgetError, lambda: client.score_texts([SECRET * 100])),
                (ValueError, lambda: client.score_token_paths([[1, 10**6]], [1]))):
            with pytest.raises(kind) as error:
                call()
            assert "secret" not in str(error.value)
        assert client.score_texts(["cat"]) == pytest.approx(scorer.score_texts(["cat"]))


BAD_BODIES = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"texts": "my secret diary"}',
              b'{"texts": ["my secret diary", 3]}', b'{"texts": ["\\ud800"]}',
              b'{"texts": [], "more": 1}', b'{"texts": ["a"], "eos": "yes"}',
              b'{"texts": ' + b"[" * 100_000, b'{"cache_namespace": "a", "texts": null}']


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_malformed_bodies_are_refused_and_not_shown(server: Server, body: bytes) -> None:
    answer = httpx.post(f"{server.url}/score_texts", content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] in ("ValueError", "TextError") and error["message"]
    assert "secret" not in answer.text
    assert httpx.post(f"{server.url}/score_texts", json={"texts": ["a"]}).status_code == 200


def test_paths_and_methods(server: Server) -> None:
    assert httpx.get(f"{server.url}/healthz").json()["status"] == "ok"
    assert httpx.get(f"{server.url}/nowhere").status_code == 404
    assert httpx.get(f"{server.url}/score_texts").status_code == 405
    model = httpx.get(f"{server.url}/v1/models").json()["data"][0]
    assert model["id"] == "tiny" and model["options"]["weight"] == 0.7


def test_large_and_slow_bodies_and_clients_that_leave(scorer: lmfusion.LMFusionScorer) -> None:
    limits = {"body_bytes": 10_000, "body_seconds": 0.3, "candidates": 100}
    with running(scorer, **limits) as server:
        large = httpx.post(f"{server.url}/score_texts", json={"texts": ["a" * 20_000]})
        assert (large.status_code, large.json()["error"]["type"]) == (413, "TooLarge")
        many = httpx.post(f"{server.url}/score_texts", json={"texts": ["a"] * 101})
        assert many.status_code == 413

        def endless() -> Iterator[bytes]:  # no length is announced
            while True:
                yield b" " * 5_000
        try:
            assert httpx.post(f"{server.url}/score_texts", content=endless()).status_code == 413
        except httpx.TransportError:
            pass  # closed while it was being sent
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /score_texts HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n{")
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")
            while slow.recv(1000):  # until it is closed
                pass
        for _ in range(5):
            with socket.create_connection((host, int(port))) as leaver:
                leaver.sendall(b"POST /score_texts HTTP/1.1\r\nHost: a\r\n"
                               b"Content-Length: 50\r\n\r\n{")
        assert httpx.post(f"{server.url}/score_texts", json={"texts": ["a"]}).status_code == 200
        assert server._service.bodies.held_bytes == 0


class Slow:
    """A scorer whose calls wait until they may go on."""

    def __init__(self, scorer: lmfusion.LMFusionScorer) -> None:
        self.scorer, self.go, self.calls = scorer, threading.Event(), 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.scorer, name)

    def score_texts(self, *arguments: object, **keywords: object) -> list[float]:
        self.calls += 1
        assert self.go.wait(60)
        return self.scorer.score_texts(*arguments, **keywords)

    def log_probs(self, *arguments: object, **keywords: object) -> list[list[float]]:
        self.calls += 1
        assert self.go.wait(60)
        return self.scorer.log_probs(*arguments, **keywords)


def _until(condition: object) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_full_queue_says_when_to_come_back_and_drops_who_left(
        scorer: lmfusion.LMFusionScorer) -> None:
    slow = Slow(scorer)
    with running(slow, concurrency=1, queue=2) as server, ThreadPoolExecutor(4) as threads:
        admission = server._service.admission

        def ask() -> httpx.Response:
            return httpx.post(f"{server.url}/score_texts", json={"texts": ["a cat"]}, timeout=60)

        first = threads.submit(ask)
        _until(lambda: admission.running == 1)
        with pytest.raises(httpx.ReadTimeout):  # waits, then leaves
            httpx.post(f"{server.url}/score_texts", json={"texts": ["left"]}, timeout=0.2)
        _until(lambda: admission.waiting == 0)
        others = [threads.submit(ask) for _ in range(2)]
        _until(lambda: admission.waiting == 2)
        refused = ask()
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        with lmfusion.Client(server.url, retry_seconds=0.2) as hasty:
            with pytest.raises(lmfusion.ServiceError) as error:
                hasty.score_texts(["a"])
            assert error.value.status == 429 and error.value.result == [None]
            begin = time.monotonic()
            assert hasty.log_probs(["a"], [["b", "c"]], deadline=0.3) == [[None, None]]
            assert hasty.log_probs(["a"], [["b"]], deadline=0.1,
                                   fallback=lambda context, word: -7.0) == [[-7.0]]
            assert time.monotonic() - begin < 30
        slow.go.set()
        for future in (first, *others):
            assert future.result().json()["result"] == scorer.score_texts(["a cat"])
        assert slow.calls == 3  # neither the one that left nor the refused ones


def test_a_deadline_counts_the_queue(scorer: lmfusion.LMFusionScorer) -> None:
    slow = Slow(scorer)
    with running(slow, concurrency=1) as server, ThreadPoolExecutor(2) as threads:
        with lmfusion.Client(server.url) as client:
            other = threads.submit(lambda: client.score_texts(["a"]))
            _until(lambda: server._service.admission.running == 1)
            late = threads.submit(
                lambda: client.log_probs(["never seen 1"], [["b"]], deadline=0.3))
            time.sleep(0.6)
            slow.go.set()
            assert late.result() == [[None]]
            assert other.result() == scorer.score_texts(["a"])
            assert client.log_probs(["a"], [["b"]], deadline=60) == scorer.log_probs(["a"], [["b"]])


def test_tokens_and_their_namespaces(scorer: lmfusion.LMFusionScorer, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# who\nalice first-token\nbob second-token\nbob third-token\n")
    tokens = read_tokens(file)
    with running(scorer, tokens=tokens) as server:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "first-token"},
                       {"Authorization": "Basic first-token"}, {"Authorization": "Bearer \xe9"}):
            header = {name: value.encode("latin-1") for name, value in header.items()}
            for path in ("score_texts", "v1/completions"):
                answer = httpx.post(f"{server.url}/{path}", json={"texts": ["a"]}, headers=header)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
            for path in ("metrics", "stats", "v1/models"):
                assert httpx.get(f"{server.url}/{path}", headers=header).status_code == 401
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        computed = []
        for token in ("first-token", "second-token", "third-token"):
            with lmfusion.Client(server.url, token=token) as client:
                before = client.stats().tokens_computed
                client.score_texts(["a text for namespaces"])
                computed.append(client.stats().tokens_computed - before)
        assert computed[0] == computed[1] > 0 and computed[2] == 0  # bob's two share
        with lmfusion.Client(server.url, token="nobody") as client, \
                pytest.raises(lmfusion.ServiceError, match="401"):
            client.stats()
    file.write_text("alice\n")
    with pytest.raises(ValueError, match="line 1") as error:
        read_tokens(file)
    assert "token of its own" in str(error.value)
    assert cache_namespace("a", "b") != cache_namespace("", "b")
    for wrong in ({"t": "a/b"}, {"": "a"}, {"t t": "a"}):
        with pytest.raises(ValueError, match="token"):
            Access(wrong)


def test_many_clients_share_the_tree_and_forward_passes(bundle: Path, oracle: Oracle) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, weight=1.0)
    alone = lmfusion.LMFusionScorer(bundle, weight=1.0)
    contexts, words = requests(4, 16)
    alone.score_continuations(contexts, words)
    with running(scorer) as server, lmfusion.Client(server.url) as client, \
            ThreadPoolExecutor(16) as threads:
        rows = list(threads.map(
            lambda i: client.score_continuations([contexts[i]], [words[i]])[0],
            [i % len(contexts) for i in range(64)]))
    check(oracle, contexts, words, rows[:len(contexts)])
    assert rows == rows[:len(contexts)] * (64 // len(contexts)) + rows[:64 % len(contexts)]
    assert scorer.stats().tokens_computed == alone.stats().tokens_computed  # each once for all


def test_metrics_and_logs_count_and_show_no_text(scorer: lmfusion.LMFusionScorer) -> None:
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonLines().format(record))

    with running(scorer) as server:
        handler = Lines()
        LOGGER.addHandler(handler)
        try:
            httpx.post(f"{server.url}/score_texts", json={"texts": [SECRET]})
            httpx.post(f"{server.url}/score_texts", json={"texts": [SECRET], SECRET: 1})
            page = httpx.get(f"{server.url}/metrics").text
        finally:
            LOGGER.removeHandler(handler)
    assert 'lmfusion_http_requests_total{path="/score_texts",status="200"} 1.0' in page
    assert 'lmfusion_http_requests_total{path="/score_texts",status="400"} 1.0' in page
    assert 'lmfusion_http_queue_seconds_count 1.0' in page
    for name in scorer.stats().to_dict():
        assert f"\nlmfusion_{name}" in page
    documents = [json.loads(line) for line in lines]
    assert [(each["path"], each["status"], each["candidates"]) for each in documents
            if each["event"] == "request" and "candidates" in each] == [("/score_texts", 200, 1)]
    assert "secret" not in "".join(lines) and "secret" not in page


def test_completions_score_prompts(server: Server, scorer: lmfusion.LMFusionScorer,
                                   oracle: Oracle) -> None:
    def ask(status: int = 200, **more: object) -> dict:
        answer = httpx.post(f"{server.url}/v1/completions", json={
            "model": "tiny", "max_tokens": 0, "echo": True, "logprobs": 0, **more})
        assert answer.status_code == status, answer.text
        return answer.json()

    text = "the cat sat"
    ids = oracle.ids(text)
    expected = oracle.tokens_log_prob(ids)
    found = ask(prompt=text)
    [choice] = found["choices"]
    assert choice["text"] == text and found["usage"]["total_tokens"] == len(ids) - 1
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(expected, abs=TOLERANCE)
    assert choice["logprobs"]["token_ids"] == ids[1:]
    # As token ids: they are the whole text, so the first has nothing before it.
    two = ask(prompt=[ids, ids[:3]], max_tokens=1, logprobs=2, temperature=0)["choices"]
    for choice, path in zip(two, (ids, ids[:3])):
        log_probs = choice["logprobs"]
        assert log_probs["token_logprobs"][0] is None
        assert log_probs["token_logprobs"][1:-1] == pytest.approx(
            oracle.tokens_log_prob(path), abs=TOLERANCE)
        with torch.no_grad():
            rows = oracle.model(input_ids=torch.tensor([path])).logits[0].log_softmax(-1)
        assert log_probs["token_ids"] == [*path, int(rows[-1].argmax())]
        for i, top in enumerate(log_probs["top_logprobs"][1:]):
            best = rows[i].topk(2)
            assert sorted(top.values(), reverse=True) == pytest.approx(
                best.values.tolist(), abs=TOLERANCE)
    [plain] = ask(prompt=text, max_tokens=1, echo=False, logprobs=None)["choices"]
    assert plain["logprobs"] is None and plain["text"]
    [empty] = ask(prompt="", max_tokens=1)["choices"]
    assert len(empty["logprobs"]["token_ids"]) == 1
    for wrong in ({"max_tokens": 2}, {"max_tokens": 16}, {"n": 2}, {"stream": True},
                  {"echo": False}, {"logprobs": 99}, {"max_tokens": 1, "temperature": 0.7},
                  {"prompt": [[]]}, {"prompt": [["a"]]}, {"prompt": None},
                  {"prompt": "the cat " * 50, "logprobs": 1}):
        error = ask(400, **{"prompt": text, **wrong})["error"]
        assert error["message"] and "the cat" not in error["message"]


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_amid_load_loses_nothing(bundle: Path, kill: signal.Signals,
                                           scorer: lmfusion.LMFusionScorer,
                                           tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start() -> subprocess.Popen[bytes]:
        with open(tmp_path / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "lmfusion", "serve", str(bundle), "--port", str(port),
                 "--weight", "0.7", "--word-insertion-bonus", "1.5"], stderr=log)

    url = f"http://127.0.0.1:{port}"
    process = start()
    errors: list[BaseException] = []
    rounds = [0] * 4
    stop = threading.Event()

    def load(worker: int) -> None:
        try:
            with lmfusion.Client(url, retry_seconds=120) as client:
                while not stop.is_set() or rounds[worker] < 3:
                    contexts, words = requests(1000 * worker + rounds[worker])
                    there = client.score_continuations(contexts, words)
                    here = scorer.score_continuations(contexts, words)
                    for row, expected in zip(there, here):
                        assert row == pytest.approx(expected, abs=TOLERANCE)
                    rounds[worker] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=load, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    try:
        _until(lambda: all(rounds) or errors)
        process.send_signal(kill)
        assert process.wait(60) in (0, -kill)
        process = start()
        done = list(rounds)
        _until(lambda: all(now > was for now, was in zip(rounds, done)) or errors)
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
        process.terminate()
        process.wait(60)
    assert not errors, errors
    assert min(rounds) >= 3


def test_sigterm_answers_what_was_begun(scorer: lmfusion.LMFusionScorer) -> None:
    slow = Slow(scorer)
    with ThreadPoolExecutor(3) as threads:
        with running(slow, concurrency=1) as server:
            calls = [threads.submit(httpx.post, f"{server.url}/score_texts",
                                    json={"texts": ["a cat"]}, timeout=60) for _ in range(3)]
            _until(lambda: server._service.admission.waiting == 2)
            server.stop()
            time.sleep(0.3)
            slow.go.set()
        for call in calls:
            assert call.result().json()["result"] == scorer.score_texts(["a cat"])


def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    with lmfusion.Client("http://127.0.0.1:9", retry_seconds=0.2) as client:
        with pytest.raises(lmfusion.ServiceError, match="is the service there") as error:
            client.score_texts(["a", "b"])
        assert error.value.result == [None, None] and error.value.status is None
        with pytest.raises(lmfusion.ServiceError):
            client.stats()


def test_lists_are_rescored_by_a_client(client: lmfusion.Client,
                                        scorer: lmfusion.LMFusionScorer) -> None:
    lists = [[("the cat sat", -3.0), ("the cats at", -2.5)], [("on a mat", -1.0)]]
    assert lmfusion.nbest.rescore(lists, client) == lmfusion.nbest.rescore(lists, scorer)
