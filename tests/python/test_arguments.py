"""What a scorer takes as arguments, and what it says about the rest: never the texts."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmfusion
import numpy
import pytest
import torch
from lmfusion import _core
from oracle import Oracle

SECRET = "my secret diary"


@pytest.fixture
def scorer(bundle: Path) -> lmfusion.LMFusionScorer:
    return lmfusion.LMFusionScorer(bundle, weight=0.5)


Call = Callable[[lmfusion.LMFusionScorer], Any]
REFUSED: dict[str, tuple[Call, str]] = {
    "element": (lambda s: s.score_texts([SECRET] * 3 + [None]),
                r"^texts\[3\]: NoneType found; a str expected$"),
    "nested element": (lambda s: s.log_probs([SECRET], [[SECRET, 3]]),
                       r"^candidate_words\[0\]\[1\]: int found; a str expected$"),
    "bytes element": (lambda s: s.score_texts([SECRET.encode()]), r"^texts\[0\]: bytes found"),
    "bare string": (lambda s: s.score_texts(SECRET), "^texts: str found; a list of str expected$"),
    "flat words": (lambda s: s.log_probs([SECRET], ["cat"]),
                   r"^candidate_words\[0\]: str found; a list of str expected$"),
    "set": (lambda s: s.score_texts({SECRET, "b"}), "^texts: set found"),
    "dict": (lambda s: s.log_probs({SECRET: 1}, [["a"]]), "^contexts: dict found"),
    "other mapping": (lambda s: s.score_texts(collections.UserDict({0: SECRET})),
                      "^texts: UserDict found"),
    "dict keys": (lambda s: s.score_texts({SECRET: 1}.keys()), "^texts: dict_keys found"),
    "bytes": (lambda s: s.score_texts(SECRET.encode()), "^texts: bytes found"),
    "none": (lambda s: s.score_continuations(None, [[SECRET]]), "^contexts: NoneType found"),
    "endings": (lambda s: s.score_endings([SECRET], ".?!"), "^endings: str found"),
    "prime": (lambda s: s.prime(SECRET), "^contexts: str found"),
    "vocabulary": (lambda s: s.prime([SECRET], vocabulary=[1]), r"^vocabulary\[0\]: int found"),
    "explain": (lambda s: s.explain(SECRET, None), "^word: NoneType found; a str expected$"),
    "eos": (lambda s: s.score_texts([SECRET], eos="yes"), "^eos: str found; a bool expected$"),
    "namespace": (lambda s: s.score_texts([SECRET], cache_namespace=7),
                  "^cache_namespace: int found"),
    "floor": (lambda s: s.log_probs([SECRET], [["a"]], floor="-3"), "^floor: str found"),
    "flat floor": (lambda s: s.log_probs([SECRET], [["a"]], floor=[-3.0]),
                   r"^floor\[0\]: float found; a list of numbers expected$"),
    "deadline": (lambda s: s.log_probs([SECRET], [["a"]], deadline="soon"),
                 "^deadline: str found; a number expected$"),
    "token": (lambda s: s.score_token_paths([[1, 2.5]], [1]),
              r"^paths\[0\]\[1\]: float found; a whole number expected$"),
    "weight": (lambda s: setattr(s, "weight", "heavy"), "^weight: str found; a number expected$"),
    "base": (lambda s: s.score_texts([SECRET], base=None), "^base: NoneType found; a number"),
    "base 2": (lambda s: s.token_log_probs([SECRET], base="2"), "^base: str found; a number"),
    "words of a str": (lambda s: s.word_log_probs(SECRET), "^texts: str found; a list of str"),
    "words of None": (lambda s: s.word_log_probs([SECRET, None]), r"^texts\[1\]: NoneType found"),
    "perplexity": (lambda s: s.perplexity({SECRET}), "^texts: set found; a list of str"),
    "lists": (lambda s: s.best([{SECRET}]), r"^lists\[0\]: set found; a list of str expected$"),
    "prompt": (lambda s: s.best([[SECRET]], prompt=3), "^prompt: int found; a str expected$"),
    "context": (lambda s: s.score_texts([SECRET], context={SECRET}), "^context: set found"),
    "lattice": (lambda s: s.best_path(SECRET), "^lattice: str found; a Lattice expected"),
    "lattices": (lambda s: s.best_paths([SECRET]), r"^lattices\[0\]: str found; a Lattice exp"),
    "state": (lambda s: lmfusion.StateScorer(s).score(SECRET, "a"),
              r"^questions\[0\]: str found; a State expected"),
    "model": (lambda s: lmfusion.LMFusionScorer(None), "^model: NoneType found; the path"),
    "phrases": (lambda s: lmfusion.PhraseList([SECRET]), "^phrases: list found; a mapping"),
    "phrase": (lambda s: lmfusion.PhraseList({SECRET: 1.0, 3: 1.0}), r"^phrases\[1\]: int found"),
    "weight of a phrase": (lambda s: lmfusion.PhraseList({SECRET: "x"}),
                           r"^the weight of phrases\[0\]: str found; a number expected$"),
    "texts of phrases": (lambda s: lmfusion.PhraseList({"a": 1.0}).score_texts([SECRET, None]),
                         r"^texts\[1\]: NoneType found; a str expected$"),
    "contexts of phrases": (lambda s: lmfusion.PhraseList({"a": 1.0}).log_probs(SECRET, [["a"]]),
                            "^contexts: str found; a list of str expected$"),
    "words of phrases": (lambda s: lmfusion.PhraseList({"a": 1.0}).log_probs([SECRET], ["a"]),
                         r"^candidate_words\[0\]: str found; a list of str expected$"),
    "weight of a model": (lambda s: lmfusion.CombinedScorer({"a": s}, {"a": "x"}),
                          r"^weights\['a'\]: str found; a number expected$"),
    "progress of two": (lambda s: lmfusion.CombinedScorer({"a": s}, {"a": 1.0}).score_texts(
        [SECRET], progress=3), "^progress: int found; a function"),
    "homophones": (lambda s: s.aggregate_homophone_scores(["a"]), r"^scores\[0\]: str found"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_type_is_named_and_no_text_is_shown(scorer: lmfusion.LMFusionScorer,
                                                    name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(TypeError, match=message) as raised:
        call(scorer)
    assert SECRET not in str(raised.value)
    assert scorer.score_texts(["the cat"])[0] < 0  # works on


@pytest.mark.parametrize(("options", "message"), [
    ({"weight": "1"}, "^weight: str found; a number expected$"),
    ({"kv_cache_bytes": 1.5}, "^kv_cache_bytes: float found; a whole number expected$"),
    ({"compute": torch.float32}, "^compute: dtype found; a str expected$"),
    ({"bos": None}, "^bos: NoneType found; a str expected$"),
    ({"casing": 3}, "^casing: int found; a name or a function expected$"),
    ({"tokenizer": "gpt2"}, "^tokenizer: str found; a function or None expected$"),
])
def test_a_wrong_option_is_named(bundle: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        lmfusion.LMFusionScorer(bundle, **options)


def test_no_text_is_shown_for_a_value_that_cannot_be_right(scorer: lmfusion.LMFusionScorer
                                                           ) -> None:
    calls: list[tuple[Call, str]] = [
        (lambda s: s.score_texts([f"{SECRET}\ud800"]),
         r"^texts\[0\] is not valid Unicode: a lone surrogate U\+D800 at character 15$"),
        (lambda s: s.score_texts(numpy.array([f"{SECRET}\ud800"])), r"^texts\[0\] is not valid"),
        (lambda s: s.log_probs([SECRET, SECRET], [["a"]]), "^2 contexts and 1 lists"),
        (lambda s: s.log_probs([SECRET], [["a", "b"]], floor=[[1.0]]),
         r"^floor\[0\] has 1 numbers for 2 candidates"),
        (lambda s: s.log_probs([SECRET], [["a"]], floor=[]), "^floor has 0 rows for 1 contexts"),
        (lambda s: s.log_probs([SECRET], [["a"]], floor=math.nan), r"^floor\[0\]\[0\] is NaN"),
        (lambda s: s.log_probs([SECRET], [["a"]], deadline=math.nan), "^deadline is NaN"),
        (lambda s: s.score_token_paths([[1, 2**40]], [1]), r"^paths\[0\]\[1\] does not fit"),
    ]
    for call, message in calls:
        with pytest.raises(ValueError, match=message) as raised:
            call(scorer)
        assert SECRET not in str(raised.value)


@pytest.mark.parametrize("number", [
    numpy.float32, numpy.float64, numpy.float16, numpy.int64, torch.tensor, numpy.array, int])
def test_numbers_of_every_kind_are_numbers(bundle: Path, number: Callable[[float], Any]) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, weight=number(2), word_insertion_bonus=number(-1),
                                     max_batch_tokens=number(7))
    assert scorer.options["weight"] == 2 and scorer.options["max_batch_tokens"] == 7
    contexts, words = ["the", "a"], [["cat", "mat"], ["cat"]]
    plain = scorer.score_continuations(contexts, words)
    assert scorer.score_continuations(contexts, words, floor=number(-1000),
                                      deadline=number(1000)) == plain
    ragged = [[number(-1000), number(-1000)], [number(0)]]
    assert scorer.score_continuations(contexts, words, floor=ragged) == [plain[0], [-math.inf]]
    scorer.weight = number(3)
    assert scorer.weight == 3.0 and type(scorer.weight) is float
    assert scorer.score_token_paths([[number(1), number(2)]], [number(1)]) == (
        scorer.score_token_paths([[1, 2]], [1]))
    assert scorer.aggregate_homophone_scores([number(-1), number(-2)]) == -1


def test_sequences_of_every_kind_are_lists(scorer: lmfusion.LMFusionScorer) -> None:
    texts = ["the cat", "a mat"]
    wanted = scorer.score_texts(texts)
    for given in (tuple(texts), numpy.array(texts), numpy.array(texts, dtype=object),
                  collections.deque(texts)):
        assert scorer.score_texts(given) == wanted
    paths = [[1, 2, 3], [1, 3, 2]]
    scored = scorer.score_token_paths(paths, [1, 1])
    assert scorer.score_token_paths(numpy.array(paths), torch.tensor([1, 1])) == scored
    assert scorer.score_texts(texts, eos=numpy.bool_(True)) == scorer.score_texts(texts, eos=True)


def test_whole_floats_are_whole_numbers(bundle: Path) -> None:
    assert lmfusion.LMFusionScorer(bundle, kv_cache_bytes=1e8).options["kv_cache_bytes"] == 10**8
    with pytest.raises(ValueError, match='kv_cache_bytes = "much"; a whole number or "auto"'):
        lmfusion.LMFusionScorer(bundle, kv_cache_bytes="much")


@pytest.mark.parametrize(("deadline", "scores"), [
    (math.inf, True), (1e300, True), (0, False), (-1.0, False), (-math.inf, False)])
def test_what_a_deadline_means(scorer: lmfusion.LMFusionScorer, deadline: float,
                               scores: bool) -> None:
    ((score,),) = scorer.log_probs(["the"], [["cat"]], deadline=deadline)
    assert (score is not None) is scores


def test_functions_that_return_rubbish_are_named(bundle: Path) -> None:
    casing = lmfusion.LMFusionScorer(bundle, casing=lambda text: None)
    with pytest.raises(TypeError, match="casing function returned: NoneType found; a str"):
        casing.score_texts([SECRET])
    tokenizer = lmfusion.LMFusionScorer(bundle, tokenizer=lambda text: ["a"])
    with pytest.raises(TypeError, match=r"tokenizer function returned\[0\]: str found"):
        tokenizer.score_texts([SECRET])
    of_torch = lmfusion.LMFusionScorer(bundle, tokenizer=lambda text: torch.tensor([3, 4]))
    of_lists = lmfusion.LMFusionScorer(bundle, tokenizer=lambda text: [3, 4])
    assert of_torch.score_texts(["x"]) == of_lists.score_texts(["x"])


def test_attributes_that_mean_nothing_cannot_be_set(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    combined = lmfusion.CombinedScorer({"llm": scorer}, {"llm": 1.0})
    states = lmfusion.StateScorer(scorer)
    for each in (scorer, combined, states, lmfusion.PhraseList({"a": 1.0})):
        for name in ("casing", "wieght", "kv_cache_bytes"):
            with pytest.raises(AttributeError, match=name):
                setattr(each, name, 1)
    scorer.weight = 0.9
    assert scorer.options["weight"] == 0.9


def test_everything_has_a_repr(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    explanation = scorer.explain("the", "cat")
    assert repr(explanation).startswith("Explanation(text='the cat', log_prob=")
    assert repr(explanation.tokens[-1]).startswith("Token(id=")
    assert f"piece={explanation.tokens[-1].piece!r}" in repr(explanation)
    combined = lmfusion.CombinedScorer({"llm": scorer}, {"llm": 0.5}, word_insertion_bonus=1.0)
    assert repr(combined).startswith("CombinedScorer(llm=0.5 * LMFusionScorer(")
    states = lmfusion.StateScorer(scorer, endings=["."])
    assert repr(states).startswith("StateScorer(LMFusionScorer(")
    assert "endings=['.']" in repr(states)
    assert repr(lmfusion.PhraseList({"new york": 2.0})) == "PhraseList(phrases: 1)"


def test_the_parts_below_a_scorer_show_no_text_either(oracle: Oracle) -> None:
    tokenizer = _core.Tokenizer.from_json(oracle.tokenizer.backend_tokenizer.to_str())
    stage = _core.TextStage(tokenizer)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: tokenizer.encode([SECRET]), "^text: list found"),
        (lambda: stage.continuations([SECRET], [[None]]), r"^candidate_words\[0\]\[0\]: NoneType"),
        (lambda: stage.run({SECRET}, [["a"]]), "^contexts: set found"),
        (lambda: stage.cased(SECRET, 3), "^word: int found"),
    ]
    for call, message in calls:
        with pytest.raises(TypeError, match=message) as raised:
            call()
        assert SECRET not in str(raised.value)
    with pytest.raises(lmfusion.TextError, match="^text is not valid Unicode"):
        tokenizer.encode("\ud800")


@pytest.mark.parametrize("model", [None, "gpt2", 3, torch.nn.Linear(2, 2)], ids=repr)
def test_what_is_no_live_model_is_named(model: Any, tmp_path: Path) -> None:
    for call in (lambda: lmfusion.from_hf(model, None),  # type: ignore[arg-type]
                 lambda: lmfusion.export(model, None, tmp_path / "model.lmf")):
        with pytest.raises(TypeError, match=f"^model: {type(model).__name__} found; a causal"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_wrapped_model_is_pointed_to() -> None:
    wrapped = torch.nn.Module()
    wrapped.module = torch.nn.Module()
    wrapped.module.config = object()  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"its \.module or \.model is one"):
        lmfusion.from_hf(wrapped, None)  # type: ignore[arg-type]


def test_objects_say_what_they_are(scorer: lmfusion.LMFusionScorer, bundle: Path) -> None:
    """No result or part of a scorer has Python's own repr, with its address."""
    explanation = scorer.explain("the", "cat")
    (best,) = scorer.best([["the cat", "a mat"]], weight=1.0)
    results = [explanation, explanation.tokens[-1], explanation.forms[0], best, best.best[0],
               scorer.stats(), scorer.tokenizer, scorer, lmfusion.StateScorer(scorer),
               lmfusion.StateScorer(scorer).start(), lmfusion.PhraseList({"a": 1.0}),
               lmfusion.CombinedScorer({"llm": scorer}, {"llm": 1.0}),
               lmfusion.memory_plan(bundle)]
    for one in results:
        assert repr(one).startswith(f"{type(one).__name__}(") and " at 0x" not in repr(one)
    assert lmfusion.memory_plan(bundle) == lmfusion.memory_plan(scorer.description)
    for one in (scorer, results[8], results[9], results[10], results[11]):
        with pytest.raises((AttributeError, TypeError)):  # TypeError: frozen dataclasses with slots
            one.wieght = 0.9  # type: ignore[attr-defined]
