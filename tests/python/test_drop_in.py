"""The lab's decoder interface, floors, deadlines, latencies and states, against plain Hugging Face.

The reference rule (`Reference`) is a decoder's own code in a few lines: encode the joined text,
one forward pass, sum the log p of the tokens after the context's.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch
from lmfusion.exporter import export
from oracle import Oracle, requests

TOLERANCE = 1e-4  # nats per scored token
RECORDINGS = Path(__file__).parents[3] / "shared" / "data"


class Reference:
    """A decoder's own scoring with `encode` as the tokenizer does it; no start token is added."""

    def __init__(self, model: torch.nn.Module, tokenizer: object) -> None:
        self.model, self.tokenizer = model, tokenizer

    def log_probs(self, ids: list[int]) -> list[float]:
        """Of all tokens but the first."""
        with torch.no_grad():
            log_p = self.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return [log_p[i, token].item() for i, token in enumerate(ids[1:])]

    def word(self, context: str, word: str) -> tuple[float, int]:
        """(log p, number of scored tokens)."""
        before = self.tokenizer.encode(context)
        ids = self.tokenizer.encode(f"{context} {word}" if context else word)
        log_probs = self.log_probs(ids)[max(len(before), 1) - 1:]
        return sum(log_probs), len(log_probs)


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no-bos"])
def hugging_face(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, object]:
    return (tiny_models.build(tiny_models.TREE_CONFIGS["llama"]()),
            tiny_models.tiny_tokenizer(adds_bos=request.param))


@pytest.fixture(scope="module")
def scorer(hugging_face: tuple[torch.nn.Module, object]) -> lmfusion.LMFusionScorer:
    return lmfusion.from_hf(*hugging_face, weight=0.6, word_insertion_bonus=1.5, compat="hf")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    return export(model, tiny_models.tiny_tokenizer(),
                           tmp_path_factory.mktemp("drop-in") / "tiny.lmf")


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    return Oracle(model, tiny_models.tiny_tokenizer(), 1)


def test_from_hf_gives_the_decoders_own_numbers(hugging_face, scorer) -> None:
    reference = Reference(*hugging_face)
    contexts = ["the cat", "and the", "you", "the cat"]
    words = [["sat", "sand"], ["other"], [], ["x", "the cat"]]
    if reference.tokenizer.encode(""):  # with a start token, first words are well defined too
        contexts, words = [*contexts, ""], [*words, ["the cat", "a", "sand"]]
    scores = scorer.score_continuations(contexts, words)
    for context, row, row_scores in zip(contexts, words, scores, strict=True):
        for word, score in zip(row, row_scores, strict=True):
            log_prob, tokens = reference.word(context, word)
            assert score == pytest.approx(0.6 * log_prob + 1.5, abs=TOLERANCE * tokens)


def test_without_a_start_token_the_first_token_is_not_scored(hugging_face, scorer) -> None:
    model, tokenizer = hugging_face
    (whole, single), = scorer.log_probs([""], [["sand", "a"]])
    ids = tokenizer.encode("sand")
    assert whole == pytest.approx(sum(Reference(model, tokenizer).log_probs(ids)),
                                  abs=TOLERANCE * len(ids))
    if len(tokenizer.encode("a")) == 1:
        assert single == 0  # no start token, one token: nothing is scored
    else:
        assert single < -0.1


def test_texts_are_scored_as_given_in_batches(hugging_face, scorer) -> None:
    reference = Reference(*hugging_face)
    texts = ["The cat sat.", "THE cat?", "and you and you", "a"]
    wanted = [reference.log_probs(reference.tokenizer.encode(text)) for text in texts]
    for scored in (scorer, lmfusion.from_hf(*hugging_face, compat="hf", casing="sentence")):
        sums = scored.score_texts_batch(texts, 2)
        means = scored.score_texts_batch(texts, chunk_size=256, length_normalize=True)
        for log_probs, total, mean in zip(wanted, sums, means, strict=True):
            assert total == pytest.approx(sum(log_probs), abs=TOLERANCE * (1 + len(log_probs)))
            assert mean == pytest.approx(sum(log_probs) / max(1, len(log_probs)), abs=TOLERANCE)


def test_sentence_ends_are_scored_over_the_three_marks(bundle: Path, oracle: Oracle) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    (row,) = scorer.score_endings(["the cat sat"])
    wanted = [oracle.text("the cat sat" + mark) - oracle.text("the cat sat") for mark in ".?!"]
    assert row == pytest.approx(wanted, abs=TOLERANCE * 20)


def test_the_attributes_of_the_interface(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, weight=0.5)
    log_prob = scorer.log_probs(["the"], [["cat"]])[0][0]
    assert (scorer.weight, scorer.word_insertion_bonus, scorer.device) == (0.5, 0.0, "cpu")
    scorer.weight, scorer.word_insertion_bonus = 2.0, -1.0
    assert scorer.score_continuations(["the"], [["cat"]]) == [[2.0 * log_prob - 1.0]]
    assert scorer.explain("the", "cat").score == pytest.approx(2.0 * log_prob - 1.0, abs=1e-5)
    assert scorer.llm_call_count == 2
    scorer.llm_call_count = 0
    scorer.score_texts(["the"])
    assert scorer.llm_call_count == 1
    assert scorer.aggregate_homophone_scores([-1.0, -1.0]) == -1.0
    scorer.homophone_aggregation = "logsumexp"
    assert scorer.aggregate_homophone_scores([-1.0, -1.0]) == pytest.approx(math.log(2) - 1)
    assert scorer.to(torch.device("cpu")) is scorer
    for name, value in {"weight": math.nan, "homophone_aggregation": "mean"}.items():
        with pytest.raises(ValueError, match=name):
            setattr(scorer, name, value)
    with pytest.raises(ValueError, match="device"):
        scorer.to("tpu")
    assert (scorer.device, scorer.llm_call_count) == ("cpu", 1)
    with pytest.raises(ValueError, match="compat"):
        lmfusion.LMFusionScorer(bundle, compat="gpt")
    with pytest.raises(ValueError, match="bos"):
        lmfusion.LMFusionScorer(bundle, compat="hf", bos="none")


@pytest.mark.parametrize("mode", ["tree", "grouped", "uncached"])
def test_a_floor_never_gives_a_wrong_number(bundle: Path, oracle: Oracle, mode: str) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, weight=0.5, word_insertion_bonus=1.0, mode=mode)
    contexts, words = requests(11)
    wanted = [[0.5 * oracle.word(context, word) + 1.0 for word in row]
              for context, row in zip(contexts, words)]
    every = sorted(itertools.chain.from_iterable(wanted))
    floor = every[len(every) // 2] + 1e-3
    for floors in (floor, [[floor] * len(row) for row in words]):
        for _ in range(2):  # computed, and then remembered
            scores = scorer.score_continuations(contexts, words, floor=floors)
            for row, row_scores in zip(wanted, scores, strict=True):
                for value, score in zip(row, row_scores, strict=True):
                    if value < floor - 2e-3:
                        assert score == -math.inf
                    elif value > floor + 2e-3:
                        assert score == pytest.approx(value, abs=2e-3)
    assert -math.inf in itertools.chain.from_iterable(scores)
    for bad in ([[0.0]], [[math.nan] * len(row) for row in words]):
        with pytest.raises(ValueError, match="floor"):
            scorer.score_continuations(contexts, words, floor=bad)
    scorer.weight = 0.0
    with pytest.raises(ValueError, match="weight"):
        scorer.score_continuations(contexts, words, floor=floor)


def test_a_floor_saves_tokens(bundle: Path) -> None:
    contexts, words = ["the cat"], [["extraordinarily", "unimaginable", "s"]]
    whole = lmfusion.LMFusionScorer(bundle, weight=1.0)
    whole.score_continuations(contexts, words)
    pruned = lmfusion.LMFusionScorer(bundle, weight=1.0)
    assert pruned.score_continuations(contexts, words, floor=0.0) == [[-math.inf] * 3]
    context_tokens = 1 + len(tiny_models.tiny_tokenizer().encode("the cat"))
    # One token of each word is known from the context; none of the others is computed.
    assert pruned.stats().tokens_computed == context_tokens
    assert whole.stats().tokens_computed > context_tokens + 20
    # What was let go is finished when it is asked for again.
    assert pruned.score_continuations(contexts, words) == [
        pytest.approx(row, abs=1e-4) for row in whole.score_continuations(contexts, words)]
    assert pruned.stats().tokens_computed == whole.stats().tokens_computed


def test_a_deadline_leaves_out_and_says_so(bundle: Path) -> None:
    contexts, words = requests(12)
    scorer = lmfusion.LMFusionScorer(bundle, weight=0.5, word_insertion_bonus=1.0)
    unscored = scorer.score_continuations(contexts, words, deadline=0.0)
    assert unscored == [[None] * len(row) for row in words]
    assert scorer.stats().tokens_computed == 0
    by_fallback = scorer.score_continuations(contexts, words, deadline=0.0,
                                             fallback=lambda context, word: -2.0 * len(word))
    assert by_fallback == [[0.5 * -2.0 * len(word) + 1.0 for word in row] for row in words]
    exact = lmfusion.LMFusionScorer(bundle, weight=0.5, word_insertion_bonus=1.0)
    for row, others in zip(scorer.score_continuations(contexts, words, deadline=1e6),
                           exact.score_continuations(contexts, words), strict=True):
        assert row == pytest.approx(others, abs=1e-4)


def test_a_deadline_in_the_middle_keeps_what_is_done(bundle: Path) -> None:
    tokenizer = tiny_models.tiny_tokenizer()
    seen = []
    exact = lmfusion.LMFusionScorer(bundle, weight=1.0)

    def slow_after_the_first(text: str) -> list[int]:
        seen.append(text)
        if text.startswith("you"):
            import time
            time.sleep(0.3)  # the deadline passes within the second context
        return tokenizer.encode(text)

    scorer = lmfusion.LMFusionScorer(bundle, weight=1.0, tokenizer=slow_after_the_first)
    scorer.score_texts(["you"])  # so slow that a piece is one context
    contexts, words = ["the", "you", "and"], [["cat"], ["sat"], ["on"]]
    first, second, third = scorer.score_continuations(contexts, words, deadline=0.25)
    wanted = exact.score_continuations(contexts, words)
    assert third == [None] and not any(text.startswith("and") for text in seen)
    for row, exact_row in zip((first, second), wanted):
        assert row == [None] or row == pytest.approx(exact_row, abs=1e-4)


def test_latencies_are_ordered_and_reset(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    assert scorer.stats().latency_p99 == 0
    for seed in range(5):
        scorer.score_continuations(*requests(seed))
    stats = scorer.stats()
    assert 0 < stats.latency_p50 <= stats.latency_p95 <= stats.latency_p99 <= stats.total_seconds
    scorer.reset_stats()
    assert scorer.stats().latency_p50 == 0


# --- states ---


def test_states_equal_continuations(bundle: Path, oracle: Oracle) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    states = lmfusion.StateScorer(scorer)
    state, total, text = states.start(), 0.0, ""
    for word in ["the", "cat", " sat", "on", "the", "mat"]:
        log_prob, after = states.score(state, word)
        assert log_prob == scorer.log_probs([state.text], [[word]])[0][0]
        assert log_prob == pytest.approx(oracle.word(text, word), abs=TOLERANCE * 20)
        total, text, state = total + log_prob, after.text, after
    assert text == "the cat sat on the mat"
    eos = scorer.description["eos_token_id"]
    total += states.finish(state)
    assert total == pytest.approx(oracle.text(text, eos=eos), abs=TOLERANCE * 30)
    marks = lmfusion.StateScorer(scorer, endings=[".", "?"]).finish(state)
    assert math.exp(marks) == pytest.approx(sum(
        math.exp(oracle.text(text + mark) - oracle.text(text)) for mark in ".?"), rel=1e-2)
    assert lmfusion.StateScorer(scorer, endings=[]).finish(state) == 0


def test_states_are_values(bundle: Path) -> None:
    states = lmfusion.StateScorer(lmfusion.LMFusionScorer(bundle))
    a = states.score(states.score(states.start(), "the")[1], "cat")[1]
    b = states.start("the cat")
    assert a == b and hash(a) == hash(b) and len({a, b, states.start()}) == 2
    assert states.score(a, "")[1] == a


def test_a_batch_of_states_is_one_call(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    states = lmfusion.StateScorer(scorer)
    questions = [(states.start(f"the {a}"), b) for a in ("cat", "mat", "x") for b in ("sat", "on")]
    batch = states.score_batch(questions + questions[:1])
    assert scorer.stats().calls == 1
    assert batch == [states.score(*question) for question in questions + questions[:1]]


def test_prefetched_states_leave_only_the_words_to_compute(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    states = lmfusion.StateScorer(scorer)
    texts = [states.start(f"the cat sat {i}") for i in range(20)]
    states.prefetch(texts)
    assert scorer.stats().calls == 1
    computed = scorer.stats().tokens_computed
    plain = lmfusion.LMFusionScorer(bundle)
    for state in texts:  # " a" is one token: its parent is all that it needs
        assert states.score(state, "a")[0] == pytest.approx(
            plain.log_probs([state.text], [["a"]])[0][0], abs=1e-4)
    assert scorer.stats().tokens_computed == computed


def test_thousands_of_states_outlive_eviction(bundle: Path, oracle: Oracle) -> None:
    description = lmfusion.LMFusionScorer(bundle).description
    slot = 4 * (2 * description["layers"] * description["kv_heads"] * description["head_dim"]
                + description["hidden_size"]) + 150
    scorer = lmfusion.LMFusionScorer(bundle, kv_cache_bytes=300 * slot)
    states = lmfusion.StateScorer(scorer)
    beam = [states.start(f"the {a} {b}") for a in range(60) for b in range(60)]
    beam = [state for _, state in states.score_batch([(state, "cat") for state in beam])]
    assert scorer.stats().evictions > 1000
    for state in beam[::611]:
        assert states.score(state, "sat")[0] == pytest.approx(
            oracle.word(state.text, "sat"), abs=TOLERANCE * 20)


# --- a real decoder's recorded requests (data that is not part of the project) ---


def recorded(name: str, count: int) -> list[dict]:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"{path} is not there: the recordings are not part of the project")
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines[::max(1, len(lines) // count)]]


def test_recorded_fusion_requests(default_model: Path, tmp_path: Path) -> None:
    requests_ = recorded("requests_fusion.jsonl", 10)
    truecaser = pytest.importorskip("lmfusion.exporter.truecaser").export_truecaser(
        tmp_path / "english.truecase")
    scorer = lmfusion.LMFusionScorer(default_model, weight=1.0, word_insertion_bonus=5.0,
                                     casing="truecase-compat", truecaser=truecaser, compat="hf")
    right = wrong = 0
    for request in requests_:
        scores = scorer.score_continuations(request["contexts"], request["candidate_words"])
        for context, row, wanted in zip(request["contexts"], scores, request["scores"]):
            if not context:
                continue  # without a start token the reference leaves its first token out
            for score, value in zip(row, wanted, strict=True):
                # Five tokens' worth: most words are one to three.
                if score == pytest.approx(value, abs=5 * TOLERANCE):
                    right += 1
                else:
                    wrong += 1
    # What differs are ties between casings, which the recording broke in its own way.
    assert right > 100 and wrong <= 0.02 * right


def test_recorded_rescoring_requests(default_model: Path) -> None:
    scorer = lmfusion.LMFusionScorer(default_model, compat="hf", casing="sentence")
    checked = 0
    for request in recorded("requests_rescoring.jsonl", 12):
        texts, wanted = request["texts"][:40], request["scores"][:40]
        scores = scorer.score_texts_batch(texts, request["chunk_size"],
                                          request["length_normalize"])
        for text, score, value in zip(texts, scores, wanted, strict=True):
            assert score == pytest.approx(value, abs=TOLERANCE * (5 + len(text.split()) * 2)), text
            checked += 1
    assert checked > 200


HOMOPHONES = [["the", "then"], ["cat", "cats", "don't"], ["sat", "mat", "well-known"],
              ["on", "a", "o'clock"], ["straße", "mat", "1,234"]]


def interpretations(scorer: lmfusion.LMFusionScorer, threshold: float, beams: int,
                    floors: bool) -> list[list[tuple[str, float]]]:
    """The search of a brain-to-text decoder with homophones: after every group of words that sound
    alike, the `beams` best interpretations no more than `threshold` behind the best."""
    kept, every = [("", 0.0)], []
    for group in HOMOPHONES:
        grown: list[tuple[str, float]] = []
        for some in (kept[:1], kept[1:]):
            best = max((score for _, score in grown), default=-math.inf)
            floor = [[best - threshold - score] * len(group) for _, score in some]
            rows = scorer.score_continuations([text for text, _ in some], [group] * len(some),
                                              floor=floor if floors and grown else None)
            grown += [(f"{text} {word}".strip(), score + more) for (text, score), row
                      in zip(some, rows) for word, more in zip(group, row)]
        best = max(score for _, score in grown)
        kept = sorted((one for one in grown if one[1] >= best - threshold),
                      key=lambda one: -one[1])[:beams]
        every.append(kept)
    return every


def test_a_homophone_threshold_is_a_floor(bundle: Path) -> None:
    """docs/adapters.md: the same interpretations survive, and fewer tokens are computed."""
    for threshold, beams in ((2.0, 100), (6.0, 100), (6.0, 8), (math.inf, 100)):
        counts = []
        for floors in (False, True):
            scorer = lmfusion.LMFusionScorer(bundle, weight=0.5, word_insertion_bonus=1.0)
            counts.append((interpretations(scorer, threshold, beams, floors),
                           scorer.stats().tokens_computed))
        (every, tokens), (with_floors, fewer) = counts
        for one, other in zip(every, with_floors, strict=True):
            assert [text for text, _ in one] == [text for text, _ in other]
            assert [score for _, score in one] == pytest.approx([score for _, score in other],
                                                                abs=1e-4)
        assert fewer <= tokens
        assert fewer < 0.8 * tokens or threshold != 6.0
