"""The benchmark: the C++ program on every kind of request, and the peers, against full forwards."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import math
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import lmfusion
import make_requests
import pytest
import tiny_models
import torch
import transformers
from peers import limit, table
from peers.calls import Call, Converter, read_calls, sentence_casing
from peers.plain_forwards import LiteralPlan, UncachedBatches

ROOT = Path(__file__).parents[2]
START, END = 1, 2
TOLERANCE = 1e-4  # nats per scored token
CONTINUATIONS = {"utt": 0, "contexts": ["", "the man", "the man", "you and", "Ünï"],
                 "candidate_words": [["the", "you"], ["and", "an", "and the"], ["s"], [],
                                     ["x", ""]]}
TEXTS = {"utt": 0, "kind": "rescore", "texts": ["the man", "the man and you", "you", ""]}
WITH_EOS = {"utt": 1, "texts": ["the man", "you"], "eos": True}
ENDINGS = {"utt": 1, "kind": "eos", "texts": ["the man", "you and I"], "endings": [".", "?", ""]}
REQUESTS = [CONTINUATIONS, TEXTS, CONTINUATIONS, WITH_EOS, ENDINGS, TEXTS]


@pytest.fixture(scope="module")
def model() -> transformers.PreTrainedModel:
    return tiny_models.build(transformers.LlamaConfig(
        vocab_size=tiny_models.VOCABULARY, hidden_size=64, intermediate_size=96,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, bos_token_id=START,
        eos_token_id=END, max_position_embeddings=256, tie_word_embeddings=False))


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    return tiny_models.tiny_tokenizer()


@pytest.fixture(scope="module")
def bundle(model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerFast,
           tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lmfusion.export(model, tokenizer, tmp_path_factory.mktemp("bench") / "tiny.lmf")


@pytest.fixture(scope="module")
def program() -> Path:
    found = sorted(ROOT.glob("build*/bench/lmfusion_bench"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.skip("lmfusion_bench is not built: no build*/bench/lmfusion_bench in the checkout "
                    "(cmake --build build --target lmfusion_bench)")
    return found[-1]


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("requests") / "requests.jsonl", REQUESTS)


def write(path: Path, requests: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(request) + "\n" for request in requests), encoding="utf-8")
    return path


def log_prob(model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerFast,
             text: str, end: bool = False) -> tuple[float, int]:
    """log p of a whole text after the start token, by one plain forward pass; its tokens."""
    ids = [START, *tokenizer(text, add_special_tokens=False)["input_ids"], *([END] * end)]
    with torch.no_grad():
        rows = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
    return sum(rows[at - 1, ids[at]].item() for at in range(1, len(ids))), len(ids)


def expected(model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerFast,
             request: dict[str, object]) -> list[list[float]]:
    """[contexts or texts][candidates], as the difference of two whole texts."""
    def total(text: str, end: bool = False) -> float:
        return log_prob(model, tokenizer, text, end)[0]

    if "contexts" in request:
        return [[total(f"{context} {word}".strip()) - total(context) for word in words]
                for context, words in zip(request["contexts"], request["candidate_words"])]
    if "endings" in request:
        return [[total(text + ending, not ending) - total(text) for ending in request["endings"]]
                for text in request["texts"]]
    return [[total(text, bool(request.get("eos")))] for text in request["texts"]]


Replay = Callable[..., dict[str, object]]


@pytest.fixture(scope="module")
def replay(program: Path, bundle: Path, requests: Path) -> Replay:
    """Runs the program on REQUESTS with some options, once for every choice of them."""
    @functools.cache
    def run(*options: str) -> dict[str, object]:
        report = requests.with_name("report.json")
        subprocess.run([program, bundle, requests, "--json", report, "--scores", "--repeat", "2",
                        "--threads", "1", *options], check=True, capture_output=True, timeout=300)
        return json.loads(report.read_text())
    return run


def assert_close(found: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]]) -> None:
    assert [len(row) for row in found] == [len(row) for row in wanted]
    for row, other in zip(found, wanted):
        assert row == pytest.approx(other, abs=20 * TOLERANCE)


@pytest.mark.parametrize(("mode", "cold"), [
    ("tree", "utterance"), ("tree", "call"), ("tree", "repeat"), ("tree", "never"),
    ("grouped", "utterance"), ("grouped", "never"), ("uncached", "utterance")])
def test_program_scores_as_full_forwards(replay, model, tokenizer, mode, cold):
    report = replay("--mode", mode, "--cold", cold)
    assert len(report["scores"]) == len(REQUESTS)
    for found, request in zip(report["scores"], REQUESTS):
        assert_close(found, expected(model, tokenizer, request))
    assert report["settings"]["mode"] == mode
    assert report["settings"]["cold"] == cold


@pytest.mark.parametrize("cold", ["utterance", "never"])
def test_program_with_several_clients_counts_them_all(replay, model, tokenizer, cold):
    report = replay("--clients", "3", "--cold", cold)
    for found, request in zip(report["scores"], REQUESTS):
        assert_close(found, expected(model, tokenizer, request))
    assert report["results"]["calls"] == 3 * len(REQUESTS)
    assert report["results"]["candidates"] == 3 * report["requests"]["candidates"]


@pytest.mark.parametrize("cold", ["utterance", "never"])
def test_several_clients_are_compared_with_one(replay, cold):
    alone = replay("--cold", cold)["results"]
    together = replay("--clients", "3", "--cold", cold)["results"]
    one = together["one_client"]
    assert "one_client" not in alone
    assert one["forwards"] == alone["forwards"]
    assert together["forwards"] <= 3 * one["forwards"]
    assert len(one["relative_throughput_each"]) == 2
    # Three clients do three times the calls of one: each ratio is of two times it took.
    each = one["relative_throughput_each"]
    assert one["relative_throughput"] == pytest.approx(sum(each) / 2)
    by_time = sorted(3 * one["seconds"] / seconds for seconds in together["seconds_each"])
    assert min(each) <= by_time[1] and by_time[0] <= max(each)


def test_clients_that_start_cold_share_no_results(replay):
    alone = replay("--mode", "tree", "--cold", "call")["results"]
    together = replay("--clients", "3", "--cold", "call")["results"]
    assert together["tokens_computed"] == 3 * alone["tokens_computed"]


def test_caches_start_empty_when_they_should(replay):
    computed = [replay("--mode", "tree", "--cold", cold)["results"]["tokens_computed"]
                for cold in ("never", "repeat", "utterance", "call")]
    assert computed[0] == 0
    assert computed == sorted(set(computed))


def test_report_has_every_figure(replay, requests):
    report = replay("--calls", "2", "--weight", "0.5")
    results = report["results"]
    assert report["requests"]["calls"] == results["calls"] == 2
    assert report["requests"]["candidates"] == results["candidates"] == 8 + 4
    assert len(results["seconds_each"]) == 2
    assert min(results["seconds_each"]) <= results["seconds"] <= max(results["seconds_each"])
    times = results["call_milliseconds"]
    assert 0 < times["p50"] <= times["p95"] <= times["p99"] <= times["max"]
    assert results["tokens_requested"] > results["tokens_computed"] > 0
    assert results["forwards"] > 0
    assert set(results["stage_seconds"]) == {"text", "tree", "forward", "output", "total"}
    assert results["peak_memory_bytes"] > 1e6
    assert report["machine"]["cores"] >= 1 and report["machine"]["memory_bytes"] > 1e6
    assert report["versions"]["lmfusion"] == lmfusion.__version__
    assert report["settings"]["weight"] == 0.5
    assert report["settings"]["threads"] == 1
    assert str(requests) in report["command"]
    assert report["model"]["architecture"] == "LlamaForCausalLM"
    first = replay("--mode", "tree", "--cold", "utterance")["scores"][0]
    for halved, whole in zip(report["scores"][0], first):
        assert halved == pytest.approx([value / 2 for value in whole], abs=TOLERANCE)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          timeout=300, check=False)


@pytest.mark.parametrize(("line", "complaint"), [
    ("not json", "not a JSON object"),
    ('["a"]', "must be an object"),
    ("{}", 'neither "contexts"'),
    ('{"contexts": ["a"]}', 'without "candidate_words"'),
    ('{"contexts": ["a"], "candidate_words": []}', "1 contexts, but 0 lists"),
    ('{"contexts": ["a"], "candidate_words": [["b", 3]]}',
     '"candidate_words"[0][1] is of type number'),
    pytest.param('{"texts": [' + "[" * 500_000 + "]" * 500_000 + "]}",
                 '"texts"[0] is of type array', id="deep"),
    ('{"contexts": ["a"], "candidate_words": ["b"]}', '"candidate_words"[0] must be a list'),
    ('{"contexts": [], "candidate_words": [], "texts": []}', "both"),
    ('{"texts": "a"}', '"texts" must be a list'),
    ('{"texts": ["a"], "eos": 1}', '"eos" must be true or false'),
    ('{"texts": ["a"], "eos": true, "endings": ["."]}', "end-of-text token"),
    ('{"utt": "one", "texts": ["a"]}', '"utt" must be a whole number'),
])
def test_bad_lines_are_named(program, bundle, tmp_path, line, complaint):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"texts": ["a"]}\n\n' + line + "\n")
    done = run(program, bundle, path)
    assert done.returncode != 0
    assert f"{path}:3: " in done.stderr
    assert complaint in done.stderr


@pytest.mark.parametrize(("content", "complaint"), [("\n", "holds no requests"), (None, "opened")])
def test_files_without_requests_are_refused(program, bundle, tmp_path, content, complaint):
    path = tmp_path / "requests.jsonl"
    if content is not None:
        path.write_text(content)
    done = run(program, bundle, path)
    assert done.returncode != 0
    assert complaint in done.stderr and str(path) in done.stderr


@pytest.mark.parametrize(("option", "value"), [("--mode", "forest"), ("--cold", "often"),
                                               ("--boundary", "none"), ("--repeat", "0")])
def test_unknown_settings_are_refused(program, bundle, requests, option, value):
    done = run(program, bundle, requests, option, value)
    assert done.returncode != 0
    assert value in done.stderr + done.stdout


# Requests as token paths, and the peers.

def converter(tokenizer: transformers.PreTrainedTokenizerFast, **options: object) -> Converter:
    return Converter(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], START,
                     END, **options)


@pytest.fixture
def calls(tokenizer: transformers.PreTrainedTokenizerFast, requests: Path) -> list[Call]:
    return read_calls(requests, converter(tokenizer))


def assert_scores(system: object, calls: Sequence[Call], model: transformers.PreTrainedModel,
                  tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    for call in calls:
        wanted = [value for row in expected(model, tokenizer, call.request) for value in row]
        assert system.score(call) == pytest.approx(wanted, abs=20 * TOLERANCE)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_uncached_batches(model, tokenizer, calls, batch):
    assert_scores(UncachedBatches(model, batch), calls, model, tokenizer)


def test_literal_plan_prefills_each_context_once(model, tokenizer, calls):
    system = LiteralPlan(model)
    assert_scores(system, calls, model, tokenizer)
    system = LiteralPlan(model)
    request = {"contexts": ["the man", "the man"], "candidate_words": [["the", "a"], ["s"]]}
    call = converter(tokenizer).call(request)
    assert all(len(path.ids) == path.scored_begin + 1 for path in call.paths)  # words of one token
    system.score(call)
    assert system.forwards == 1
    assert system.tokens_computed == call.paths[0].scored_begin


def test_the_row_that_answers_only_which_text(model, tokenizer, bundle):
    from peers.lmfusion_scorer import BestOnly
    from peers.worker import Round
    texts = ["the man", "the man s", "a cat sat", "the the the"]
    call, words = (converter(tokenizer).call(request) for request in (
        {"texts": texts}, {"contexts": ["the"], "candidate_words": [["man"]]}))
    wanted = [value for row in expected(model, tokenizer, call.request) for value in row]
    system = BestOnly(bundle, mode="tree", compute="float32")
    scores = system.score(call)
    best = wanted.index(max(wanted))
    assert scores[best] == pytest.approx(wanted[best], abs=20 * TOLERANCE)
    assert [score for i, score in enumerate(scores) if i != best] == [-math.inf] * 3
    with pytest.raises(ValueError, match="which text"):
        system.score(words)
    one = Round([0.1], [scores], system.tokens_computed, system.forwards, 1, 1)
    row = table.row_of("lmfusion-best-float32", "default", [one], one, [call], [call])
    row |= table.compare([call], [scores], [wanted])
    assert row["rank1_agreement"] == 1.0 and row["largest_difference"] < 1e-3
    assert row["nats_per_token"] == pytest.approx(-scores[best] / call.scored_tokens()[best])
    assert "(answers only: which text)" in table._line(row, 1.0)
    # A recogniser's scores, which make another text the best.
    other = (best + 1) % len(texts)
    base = [100.0 if place == other else -float(place) for place in range(len(texts))]
    call = converter(tokenizer).call({"texts": texts, "base_scores": base})
    scores = system.score(call)
    assert [place for place, score in enumerate(scores) if score > -math.inf] == [other]
    assert scores[other] == pytest.approx(wanted[other], abs=20 * TOLERANCE)
    assert table.compare([call], [scores], [wanted])["rank1_agreement"] == 1.0
    wrong = [0.0 if place == best else -math.inf for place in range(len(texts))]
    assert table.compare([call], [wrong], [wanted])["rank1_agreement"] == 0.0


def test_casing_of_peers_is_that_of_the_library(tokenizer, bundle):
    scorer = lmfusion.LMFusionScorer(bundle, casing="sentence")
    for context, word in [("", "i"), ("i'm", "he"), ("' what", "i'd do"), ("is i", "'s"), ("", ""),
                          ("2 men", "and i, too"), ("ü", "i've.")]:
        explanation = scorer.explain(context, word)
        text, length = sentence_casing(context, word)
        assert (text, len(text[:length].encode())) == (explanation.text, explanation.context_bytes)


@pytest.fixture
def many_calls(tokenizer: transformers.PreTrainedTokenizerFast, tmp_path: Path) -> list[Call]:
    shape = make_requests.Shape(utterances=2, beams=6, candidates=3, last_calls=3)
    path = make_requests.write_requests(shape, tmp_path / "made.jsonl")
    return read_calls(path, converter(tokenizer))


def need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"the package of {module} is not installed; this peer is not checked")


def test_ctranslate2(model, tokenizer, calls, many_calls, tmp_path):
    need("ctranslate2")
    from peers.ctranslate2_batches import ScoreBatch, convert
    folder = convert(model, tokenizer, tmp_path / "ctranslate2")
    system = ScoreBatch(folder, compute="float32", threads=1, batch=4)
    assert_scores(system, [*calls, *many_calls], model, tokenizer)


@pytest.mark.parametrize("max_tokens", [12, 2048])
def test_llama_cpp_as_one_tree_or_in_pieces(model, tokenizer, calls, tmp_path, max_tokens):
    need("llama_cpp")
    need("gguf")
    from peers.gguf_file import write_gguf
    from peers.llama_cpp_tree import TreePerCall
    path = write_gguf(model, tmp_path / "tiny.gguf")
    system = TreePerCall(path, threads=1, max_tokens=max_tokens)
    assert_scores(system, calls, model, tokenizer)
    assert (system.forwards == len(calls)) == (max_tokens == 2048)


def test_llama_cpp_computes_each_token_of_a_call_once(model, tokenizer, many_calls, tmp_path):
    need("llama_cpp")
    need("gguf")
    from peers.gguf_file import write_gguf
    from peers.llama_cpp_tree import TreePerCall
    system = TreePerCall(write_gguf(model, tmp_path / "tiny.gguf"), threads=1)
    assert_scores(system, many_calls, model, tokenizer)
    apart = [limit.work_of([call])[0].tokens for call in many_calls]
    assert system.tokens_computed == sum(apart)


# The limit and the comparison.

def test_work_counts_every_distinct_token_of_an_utterance_once(calls):
    work = limit.work_of(calls)
    distinct = 0
    for _, utterance in itertools.groupby(calls, key=lambda call: call.utterance):
        scored = [path.ids for call in utterance for path in call.paths
                  if len(path.ids) > path.scored_begin]
        distinct += len({ids[:end] for ids in scored for end in range(1, len(ids))})
    assert sum(step.tokens for step in work) == distinct
    assert work[2] == limit.Work(0, 0)  # the call repeats the first one


def test_limit_is_the_larger_of_reading_and_computing():
    size = limit.ModelSize(body=1000, head=100)
    seconds = limit.seconds_of([limit.Work(1, 1), limit.Work(50, 2), limit.Work(0, 0)], size,
                               bytes_per_weight=4, bandwidth=1e3, peak=1e4)
    assert seconds == pytest.approx(1100 * 4 / 1e3 + 2 * (1000 * 50 + 100 * 2) / 1e4)


def test_a_type_without_instructions_is_held_to_float32(calls):
    size = limit.ModelSize(body=1000, head=100)
    machine = {"bandwidth": 1e12, "float32": 1e4, "bfloat16": 1e3}
    rows = [{"system": f"lmfusion-tree-{compute}", "seconds": 1.0}
            for compute in ("float32", "bfloat16")]
    for row in rows:
        table.add_limit(row, calls, size, machine)
    assert rows[0]["limit_seconds"] == rows[1]["limit_seconds"] > 0


def test_readings_that_jump_are_shown_as_they_spread():
    machine: dict = {"by": {}}
    rounds = (20e9, 100e9, "sum"), (30e9, 101e9, "mv"), (25e9, 99e9, "max")
    for bandwidth, flops, reader in rounds:
        limit.keep(machine, {"bandwidth": bandwidth, "float32": flops, "missing": {},
                             "by": {"bandwidth": reader, "float32": "linear"}})
    assert table._spread(machine, "bandwidth") == "25 of 20 to 30"
    assert table._spread(machine, "float32") == "101"
    assert machine["by"] == {"bandwidth": "max", "float32": "linear"}


def test_tail_is_what_the_slowest_call_takes_beyond_its_tokens():
    assert table.tail([10.0, 10.0, 100.0, 1.0], [10, 10, 100, 0]) == pytest.approx(1)
    assert table.tail([10.0, 10.0, 300.0], [10, 10, 100]) == pytest.approx(3)
    assert table.tail([1.0, 2.0], [0, 0]) is None


def test_comparison_counts_ranks_and_differences(tokenizer):
    call = converter(tokenizer).call({"contexts": ["a", "b", "c"],
                                      "candidate_words": [["x", "y"], ["x"], ["the", "and"]]})
    found = table.compare([call], [[-1.0, -2.0, -5.0, -3.0, -2.5]],
                          [[-2.0, -1.5, -5.0, -3.0, -2.0]])
    assert found["largest_difference"] == 1.0
    assert found["mean_difference"] == pytest.approx(2.0 / 5)
    assert found["rank1_agreement"] == 0.5  # a context with one candidate is no contest


@pytest.fixture
def worker(model, tokenizer, calls, bundle, tmp_path):
    from peers.model_files import files_of
    from peers.worker import Worker
    source = tmp_path / "model"
    model.save_pretrained(source)
    tokenizer.save_pretrained(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMFUSION_CACHE", str(tmp_path / "cache"))
        files = files_of(source, bundle)
    worker = Worker("lmfusion-tree-float32", files, calls, calls[:1], threads=1, options={},
                    environment={})
    yield worker
    worker.close()


def test_worker_scores_in_a_process_of_its_own(worker, calls, model, tokenizer):
    one = worker.run("calls")
    for call, scores in zip(calls, one.scores):
        wanted = [value for row in expected(model, tokenizer, call.request) for value in row]
        assert scores == pytest.approx(wanted, abs=20 * TOLERANCE)
    assert one.tokens_computed == sum(step.tokens for step in limit.work_of(calls))
    assert len(one.call_seconds) == len(calls) and one.peak_bytes > 1e6
    assert len(worker.run("quality").scores) == 1


def test_worker_that_dies_is_reported(worker):
    from peers.worker import Unavailable
    worker._process.kill()
    worker._process.join()
    with pytest.raises(Unavailable, match="killed"):
        worker.run("calls")


def test_made_requests_are_repeatable_and_of_the_shape_asked_for():
    shape = make_requests.Shape(utterances=2, beams=7, candidates=4, context_words=30, last_calls=2)
    made = list(make_requests.make_requests(shape))
    assert made == list(make_requests.make_requests(shape))
    assert [request["utt"] for request in made] == [0, 0, 1, 1]
    for request in made:
        assert len(request["contexts"]) == len(request["candidate_words"]) == 7
        assert all(len(set(words)) == len(words) == 4 for words in request["candidate_words"])
        assert all(len(context.split()) > 30 for context in request["contexts"])
