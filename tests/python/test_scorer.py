"""`LMFusionScorer` against plain Hugging Face: one forward pass a text, nothing shared."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch
from devices import MakeScorer
from lmfusion.exporter import export
from oracle import TOLERANCE, Oracle, check, requests

MODES = ["tree", "grouped", "uncached"]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["gemma3"]())
    return Oracle(model, tiny_models.tiny_tokenizer(), 1)


@pytest.fixture(scope="module")
def bundle(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(oracle.model, oracle.tokenizer, tmp_path_factory.mktemp("scorer") / "tiny.lmf")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [1, 3, 512])
def test_continuations_equal_hugging_face(oracle: Oracle, bundle: Path, mode: str, batch: int,
                                          make_scorer: MakeScorer) -> None:
    scorer = make_scorer(bundle, weight=0.7, word_insertion_bonus=1.5, mode=mode,
                         max_batch_tokens=batch)
    for seed in (1, 2):
        contexts, words = requests(seed)
        check(oracle, contexts, words, scorer.score_continuations(contexts, words), 0.7, 1.5)
        parts = scorer.log_probs(contexts, words)
        check(oracle, contexts, words, parts)


@pytest.mark.parametrize("tokens", [60, 90])
def test_a_tiny_budget_evicts_and_stays_right(oracle: Oracle, bundle: Path, tokens: int,
                                              make_scorer: MakeScorer) -> None:
    description = make_scorer(bundle).description
    slot = 4 * (2 * description["layers"] * description["kv_heads"] * description["head_dim"]
                + description["hidden_size"]) + 150
    scorer = make_scorer(bundle, weight=1.0, kv_cache_bytes=tokens * slot)
    evictions = 0
    for seed in (3, 4, 5):
        contexts, words = requests(seed)
        check(oracle, contexts, words, scorer.score_continuations(contexts, words))
        stats = scorer.stats()
        assert stats.cache_bytes <= stats.cache_bytes_limit == tokens * slot
        assert stats.evictions > evictions
        evictions = stats.evictions
    with pytest.raises(lmfusion.CacheBudgetError, match="kv_cache_bytes"):
        scorer.score_continuations(["the " * 300], [["x"]])
    contexts, words = requests(3)
    check(oracle, contexts, words, scorer.score_continuations(contexts, words))


def test_a_second_identical_call_computes_nothing(bundle: Path, make_scorer: MakeScorer) -> None:
    scorer = make_scorer(bundle)
    contexts, words = requests(6)
    first = scorer.score_continuations(contexts, words)
    computed = scorer.stats().tokens_computed
    assert computed > 0
    assert scorer.score_continuations(contexts, words) == first
    assert scorer.stats().tokens_computed == computed
    # In any other order too, and one by one.
    assert scorer.score_continuations(contexts[::-1], words[::-1]) == first[::-1]
    for context, row, scores in zip(contexts, words, first):
        assert scorer.score_continuations([context], [row]) == [scores]
    assert scorer.stats().tokens_computed == computed
    scorer.reset_stats()
    assert scorer.stats().tokens_computed == 0 and scorer.stats().calls == 0
    scorer.clear_cache()
    assert scorer.stats().cached_tokens == 0
    again = scorer.score_continuations(contexts, words)
    assert scorer.stats().tokens_computed == computed
    for row, others in zip(first, again):
        assert row == pytest.approx(others, abs=1e-5)


def test_tree_computes_less_than_grouped_less_than_uncached(bundle: Path,
                                                            make_scorer: MakeScorer) -> None:
    computed = {}
    contexts, words = requests(7, contexts=40)
    for mode in MODES:
        scorer = make_scorer(bundle, mode=mode)
        scorer.score_continuations(contexts, words)
        computed[mode] = scorer.stats().tokens_computed
    assert computed["tree"] < computed["grouped"] < computed["uncached"]


def test_whole_texts_and_endings(oracle: Oracle, bundle: Path, make_scorer: MakeScorer) -> None:
    scorer = make_scorer(bundle)
    texts = ["the cat sat on a mat", "i'm 3", "", "the cat sat", "日本 🙂"]
    eos = scorer.description["eos_token_id"]
    for text, score in zip(texts, scorer.score_texts(texts)):
        assert score == pytest.approx(oracle.text(text), abs=TOLERANCE * 30)
    for text, score in zip(texts, scorer.score_texts(texts, eos=True)):
        assert score == pytest.approx(oracle.text(text, eos=eos), abs=TOLERANCE * 30)
    endings = [".", "?", "!", ""]
    for text, row in zip(texts, scorer.score_endings(texts, endings)):
        wanted = [oracle.text(text + ending) - oracle.text(text) for ending in endings[:3]]
        wanted.append(oracle.text(text, eos=eos) - oracle.text(text))
        assert row == pytest.approx(wanted, abs=TOLERANCE * 30)
    assert scorer.score_texts([]) == []
    assert scorer.score_endings([], ["."]) == []
    assert scorer.score_continuations([], []) == []


def test_sentence_casing(oracle: Oracle, bundle: Path, make_scorer: MakeScorer) -> None:
    scorer = make_scorer(bundle, weight=1.0, casing="sentence")
    contexts, words = ["", "well i", "i'm here and i'll"], [["i", "the"], ["i'd", "cats"], ["i've"]]
    cased = {("", "i"): ("", "I"), ("", "the"): ("", "The"), ("well i", "i'd"): ("Well I", "I'd"),
             ("well i", "cats"): ("Well I", "cats"),
             ("i'm here and i'll", "i've"): ("I'm here and I'll", "I've")}
    for context, row, scores in zip(contexts, words, scorer.score_continuations(contexts, words)):
        for word, score in zip(row, scores):
            assert score == pytest.approx(oracle.word(*cased[context, word]), abs=TOLERANCE * 20)


def test_callables_for_casing_and_tokenizer(oracle: Oracle, bundle: Path,
                                            make_scorer: MakeScorer) -> None:
    def ids(text: str) -> list[int]:
        return oracle.tokenizer(text, add_special_tokens=False)["input_ids"]

    scorer = make_scorer(bundle, weight=1.0, casing=str.upper, tokenizer=ids)
    contexts, words = ["the cat"], [["sat", "on"]]
    scores = scorer.score_continuations(contexts, words)[0]
    wanted = [oracle.word("THE CAT", word.upper()) for word in words[0]]
    assert scores == pytest.approx(wanted, abs=TOLERANCE * 20)

    def fail(text: str) -> str:
        raise KeyError("my own mistake")

    with pytest.raises(KeyError, match="my own mistake"):
        make_scorer(bundle, casing=fail).score_texts(["x"])


def test_contexts_longer_than_the_limit_are_cut_in_blocks(oracle: Oracle, bundle: Path,
                                                          make_scorer: MakeScorer) -> None:
    scorer = make_scorer(bundle, weight=1.0, max_context_length=20)
    context = " ".join(["the", "cat", "sat"] * 12)
    ids = oracle.tokenizer(context, add_special_tokens=False)["input_ids"]
    assert len(ids) > 40
    whole = oracle.tokenizer(context + " mat", add_special_tokens=False)["input_ids"]
    assert whole[:len(ids)] == ids
    wanted = 0.0
    for before in range(len(ids), len(whole)):  # tokens before the scored one
        dropped = math.ceil((before - 20) / 5) * 5
        kept = [oracle.start, *whole[dropped:before + 1]]
        wanted += oracle.tokens_log_prob(kept)[-1]
    assert scorer.score_continuations([context], [["mat"]])[0][0] == pytest.approx(
        wanted, abs=TOLERANCE * 5)
    assert scorer.stats().truncated_contexts == 1


def test_start_tokens(oracle: Oracle, bundle: Path, make_scorer: MakeScorer) -> None:
    text = "the cat"
    ids = oracle.ids(text)
    with torch.no_grad():
        no_start = sum(oracle.tokens_log_prob(ids[1:]))
    # This tokenizer adds no start token itself, so the first token is not scored.
    for bos in ("tokenizer", "none"):
        assert make_scorer(bundle, bos=bos).score_texts([text]) == pytest.approx(
            [no_start], abs=TOLERANCE * 10)
    piece = oracle.tokenizer.convert_ids_to_tokens(2)
    other = Oracle(oracle.model, oracle.tokenizer, 2)
    assert make_scorer(bundle, bos=piece).score_texts([text]) == pytest.approx(
        [other.text(text)], abs=TOLERANCE * 10)
    with pytest.raises(TypeError, match="^bos: bool found; a str expected"):
        make_scorer(bundle, bos=True)  # which is no id


def test_boundary_word(oracle: Oracle, bundle: Path, make_scorer: MakeScorer) -> None:
    scorer = make_scorer(bundle, weight=1.0, boundary="word")
    white_space = ("Ġ", "Ċ", "ĉ", "č", "ċ", "Č")
    begins = [piece.startswith(white_space) for piece in
              oracle.tokenizer.convert_ids_to_tokens(range(len(oracle.tokenizer)))]
    mask = torch.zeros(tiny_models.VOCABULARY, dtype=torch.bool)
    mask[:len(begins)] = torch.tensor(begins)
    mask[scorer.description["eos_token_id"]] = True

    def ends(text: str) -> float:
        with torch.no_grad():
            log_p = oracle.model(input_ids=torch.tensor([oracle.ids(text)])).logits[0, -1]
        return log_p.log_softmax(-1)[mask].logsumexp(0).item()

    contexts, words = ["", "the", "the cat"], [["the", "a"], ["cat", "cats", "x"], ["sat"]]
    for context, row, scores in zip(contexts, words, scorer.log_probs(contexts, words)):
        for word, score in zip(row, scores):
            text = f"{context} {word}".strip()
            before = ends(context) if context else 0.0
            assert score == pytest.approx(oracle.word(context, word) + ends(text) - before,
                                          abs=TOLERANCE * 20)
    (first,), (second,), (both,) = scorer.log_probs(["", "the", ""],
                                                    [["the"], ["cat"], ["the cat"]])
    assert first + second == pytest.approx(both, abs=1e-4)


def test_explain(oracle: Oracle, bundle: Path, make_scorer: MakeScorer) -> None:
    scorer = make_scorer(bundle, weight=0.5, word_insertion_bonus=2.0)
    first = scorer.explain("the cat", "sat")
    assert first.text == "the cat sat" and first.text[:first.context_bytes] == "the cat"
    assert [token.id for token in first.tokens] == oracle.ids("the cat sat")
    assert [token.piece for token in first.tokens] == oracle.tokenizer.convert_ids_to_tokens(
        oracle.ids("the cat sat"))
    scored = [token for token in first.tokens if token.scored]
    assert sum(token.log_prob for token in scored) == pytest.approx(first.log_prob, abs=1e-5)
    assert first.log_prob == pytest.approx(oracle.word("the cat", "sat"), abs=TOLERANCE * 5)
    assert first.score == pytest.approx(0.5 * first.log_prob + 2.0)
    assert first.tokens_computed == len(first.tokens) - 1
    assert not any(token.reused for token in first.tokens)
    again = scorer.explain("the cat", "sat")
    assert again.tokens_computed == 0
    assert all(token.reused for token in again.tokens[:-1])


def test_threads(oracle: Oracle, bundle: Path, make_scorer: MakeScorer) -> None:
    scorer = make_scorer(bundle, weight=1.0)
    results: dict[int, list[list[float]]] = {}

    def decode(seed: int) -> None:
        results[seed] = scorer.score_continuations(*requests(seed))

    threads = [threading.Thread(target=decode, args=(seed,)) for seed in range(20, 28)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for seed, scores in results.items():
        check(oracle, *requests(seed), scores)


def test_one_namespace_is_forgotten(scorer: lmfusion.LMFusionScorer, tmp_path: Path) -> None:
    def cost(name: str) -> int:
        before = scorer.stats().tokens_computed
        scorer.log_probs(["the cat"], [["sat", "sand"]], cache_namespace=name)
        return scorer.stats().tokens_computed - before

    whole = cost("")
    assert whole > 0 and [cost(name) for name in ("a", "b", "", "a")] == [whole, whole, 0, 0]
    held = scorer.stats().cached_tokens
    assert scorer.save_cache(tmp_path / "a", cache_namespace="a") == held // 3
    scorer.clear_cache("a")
    assert scorer.stats().cached_tokens == held - held // 3
    assert scorer.save_cache(tmp_path / "a", cache_namespace="a") == 0
    assert [cost(name) for name in ("b", "", "a")] == [0, 0, whole]
    scorer.clear_cache("")
    scorer.clear_cache("nobody's")
    assert [cost(name) for name in ("a", "b", "")] == [0, 0, whole]
    scorer.clear_cache()
    assert scorer.stats().cached_tokens == 0
    with pytest.raises(TypeError, match="cache_namespace"):
        scorer.clear_cache(1)  # type: ignore[arg-type]


def test_a_plain_module_is_scored_without_a_cache(oracle: Oracle, bundle: Path,
                                                  tmp_path: Path) -> None:
    plain = export(oracle.model, oracle.tokenizer, tmp_path / "plain.lmf", uncached=True)
    scorer = lmfusion.LMFusionScorer(plain, weight=1.0)
    contexts, words = requests(9)
    check(oracle, contexts, words, scorer.score_continuations(contexts, words))
    assert scorer.stats().cached is False
    assert scorer.stats().tokens_reused == 0

    class Foreign(torch.nn.Module):  # a TorchScript file that is no bundle at all
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot((ids + 1) % 7, 9).to(torch.float32)

    path = tmp_path / "foreign.pt"
    torch.jit.script(Foreign()).save(str(path))
    foreign = lmfusion.LMFusionScorer(path)
    log_p = torch.tensor([[0.0] * 8 + [1.0]]).log_softmax(-1)[0]
    assert foreign.score_token_paths([[3, 4, 5], [2, 2]], [1, 1]) == [
        pytest.approx([log_p[8].item()] * 2), pytest.approx([log_p[0].item()])]
    with pytest.raises(ValueError, match="tokenizer"):
        foreign.score_texts(["x"])


def test_bad_input_is_refused_and_the_scorer_works_on(bundle: Path, tmp_path: Path,
                                                      make_scorer: MakeScorer) -> None:
    scorer = make_scorer(bundle)
    before = scorer.score_continuations(["the"], [["cat"]])
    with pytest.raises(ValueError, match="2 contexts and 1 lists"):
        scorer.score_continuations(["a", "b"], [["c"]])
    with pytest.raises(lmfusion.TextError, match=r"contexts\[0\].*U\+D800 at character 1"):
        scorer.score_continuations(["a\ud800"], [["c"]])
    with pytest.raises(lmfusion.TextError, match=r"candidate_words\[0\]\[1\]"):
        scorer.score_continuations(["a"], [["c", "\udfff"]])
    with pytest.raises(TypeError):
        scorer.score_continuations([3], [["c"]])
    with pytest.raises(ValueError, match="scored_begin"):
        scorer.score_token_paths([[1, 2]], [3])
    with pytest.raises(ValueError, match="no context"):
        scorer.score_token_paths([[1, 2]], [0])
    with pytest.raises(ValueError, match="vocabulary"):
        scorer.score_token_paths([[1, 10**6]], [1])
    with pytest.raises(ValueError, match="scores"):
        scorer.aggregate_homophone_scores([])
    assert scorer.score_continuations(["the"], [["cat"]]) == before

    (tmp_path / "garbage.lmf").write_bytes(b"garbage")
    for path in (tmp_path / "garbage.lmf", tmp_path / "nothing.lmf"):
        with pytest.raises(lmfusion.ModelFileError, match=path.name):
            make_scorer(path)
    for name, value in {"mode": "fast", "boundary": "letter", "casing": "upper", "device": "tpu",
                        "homophone_aggregation": "mean", "bos": "<no such token>",
                        "compute": "float8", "max_batch_tokens": 0, "max_context_length": 0,
                        "kv_cache_bytes": 0, "weight": float("nan")}.items():
        with pytest.raises(ValueError, match=name):
            make_scorer(bundle, **{name: value})
    with pytest.raises(lmfusion.CacheBudgetError, match="kv_cache_bytes"):
        make_scorer(bundle, kv_cache_bytes=100)


def test_homophones(bundle: Path, make_scorer: MakeScorer) -> None:
    scores = [-1.0, -2.0, -5.5]
    assert make_scorer(bundle).aggregate_homophone_scores(scores) == -1.0
    logsumexp = make_scorer(bundle, homophone_aggregation="logsumexp")
    assert logsumexp.aggregate_homophone_scores(scores) == pytest.approx(
        math.log(sum(math.exp(score) for score in scores)))
