"""Tokens, explanations and other methods of a combination, against plain Hugging Face's sums."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import lmfusion
import pytest
import tiny_models
from lmfusion.exporter import export
from oracle import TOLERANCE, Oracle

TEXTS = ["the cat sat", "", "don't the cats"]
PHRASES = lmfusion.PhraseList({"the cat": 3.0})


class Models:
    """Two model files of other weights with one tokenizer, and plain Hugging Face for each."""

    def __init__(self, bundle: Path, oracle: Oracle, folder: Path) -> None:
        tokenizer = tiny_models.tiny_tokenizer()
        other = tiny_models.build(tiny_models.TREE_CONFIGS["llama"](), seed=5)
        export(other, tokenizer, folder / "other.lmf")
        self.paths = {"one": bundle, "other": folder / "other.lmf"}
        self.oracles = {"one": oracle, "other": Oracle(other, tokenizer, oracle.start)}

    def combined(self, *, phrases: float | None = None, one: float = 0.7, other: float = 0.4
                 ) -> lmfusion.CombinedScorer:
        components: dict[str, lmfusion.combined.Component] = {
            name: lmfusion.LMFusionScorer(path) for name, path in self.paths.items()}
        weights = {"one": one, "other": other}
        if phrases is not None:
            components["phrases"], weights["phrases"] = PHRASES, phrases
        return lmfusion.CombinedScorer(components, weights, word_insertion_bonus=0.25)

    def tokens(self, text: str, one: float = 0.7, other: float = 0.4) -> list[float]:
        rows = [self.oracles[name].tokens_log_prob(self.oracles[name].ids(text))
                for name in ("one", "other")]
        return [one * a + other * b for a, b in zip(*rows, strict=True)]


@pytest.fixture(scope="module")
def models(bundle: Path, oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(bundle, oracle, tmp_path_factory.mktemp("other"))


def test_tokens_and_perplexity_of_weighted_sums(models: Models) -> None:
    reports: list[tuple[int, int]] = []
    scorer = models.combined(phrases=0.0)  # a model that does not count is not asked
    found = scorer.token_log_probs(TEXTS, progress=lambda *report: reports.append(report))
    assert reports == sorted(reports) and reports[-1] == (2 * len(TEXTS), 2 * len(TEXTS))
    perplexities = scorer.perplexity(TEXTS)
    binary = scorer.token_log_probs(TEXTS, base=2)
    oracle = models.oracles["one"]
    pieces = tiny_models.tiny_tokenizer().convert_ids_to_tokens
    for text, row, perplexity, bits in zip(TEXTS, found, perplexities, binary, strict=True):
        right = models.tokens(text) if text else []
        assert [score for _, score in row] == pytest.approx(right, abs=2 * TOLERANCE)
        assert [piece for piece, _ in row] == pieces(oracle.ids(text)[1:])
        assert [score for _, score in bits] == pytest.approx(
            [score / math.log(2) for score in right], abs=3 * TOLERANCE)
        if text:
            assert perplexity == pytest.approx(math.exp(-sum(right) / len(right)), rel=1e-3)
        else:
            assert math.isnan(perplexity)
    assert [sum(score for _, score in row) for row in found] == pytest.approx(
        scorer.score_texts(TEXTS), abs=TOLERANCE)


def test_tokens_that_have_no_sum_are_refused(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'phrases' scores words, not tokens"):
        models.combined(phrases=1.0).token_log_probs(TEXTS)
    with pytest.raises(ValueError, match="every weight is 0"):
        models.combined(one=0.0, other=0.0).perplexity(TEXTS)
    lower = lmfusion.LMFusionScorer(models.paths["one"])
    upper = lmfusion.LMFusionScorer(models.paths["one"], casing="sentence")
    both = lmfusion.CombinedScorer({"lower": lower, "upper": upper}, {"lower": 0.5, "upper": 0.5})
    with pytest.raises(ValueError, match=r"texts\[1\]: the models 'lower' and 'upper' split it "
                                         "into different tokens"):
        both.token_log_probs(["", "the cat"])


def test_explanations(models: Models) -> None:
    scorer = models.combined(phrases=1.5)
    found = scorer.explain("the", "cat")
    parts = {name: oracle.word("the", "cat") for name, oracle in models.oracles.items()}
    assert found.parts == pytest.approx(
        {**parts, "phrases": PHRASES.log_probs(["the"], [["cat"]])[0][0]}, abs=5 * TOLERANCE)
    assert found.weights == {"one": 0.7, "other": 0.4, "phrases": 1.5}
    log_prob = sum(found.weights[name] * part for name, part in found.parts.items())
    assert found.log_prob == pytest.approx(log_prob)
    assert found.score == pytest.approx(log_prob + 0.25)
    assert found.score == pytest.approx(scorer.score_continuations(["the"], [["cat"]])[0][0])
    assert list(found.models) == ["one", "other"]
    for name, one in found.models.items():
        assert sum(token.log_prob for token in one.tokens if token.scored) == pytest.approx(
            parts[name], abs=5 * TOLERANCE)
    assert scorer.explain("the", "cat", join="none").models["one"].text == "thecat"
    assert pickle.loads(pickle.dumps(found)).parts == found.parts


def test_texts_as_they_are_given_and_their_lengths(models: Models) -> None:
    scorer = models.combined(phrases=1.5)
    texts = ["the cat sat.", "cats"]
    wanted = [sum(models.tokens(text)) + 1.5 * PHRASES.score_texts([text])[0] for text in texts]
    assert scorer.score_texts_batch(texts, 1) == pytest.approx(wanted, abs=20 * TOLERANCE)
    wanted = [sum(models.tokens(text)) / len(models.tokens(text))
              + 1.5 * PHRASES.score_texts([text])[0] / len(text.split()) for text in texts]
    assert scorer.score_texts_batch(texts, length_normalize=True) == pytest.approx(
        wanted, abs=2 * TOLERANCE)


def test_checks_counts_and_homophones(models: Models) -> None:
    scorer = models.combined(phrases=1.5)
    assert 0 <= scorer.selfcheck(["the"], [["cat", "mat"]]) < 1e-4
    scorer.reset_stats()
    scorer.score_continuations(["the"], [["cat"]])
    assert scorer.llm_call_count == 2
    assert scorer.aggregate_homophone_scores([-1.0, -2.0]) == -1.0
    scorer.homophone_aggregation = "logsumexp"
    assert scorer.aggregate_homophone_scores([-1.0, -1.0]) == pytest.approx(math.log(2) - 1)
    with pytest.raises(ValueError, match="no scores"):
        scorer.aggregate_homophone_scores([])
    with pytest.raises(ValueError, match="homophone_aggregation = 'mean'"):
        lmfusion.CombinedScorer({}, {}, homophone_aggregation="mean")
    for again in (copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
        assert again.weights == scorer.weights and again.homophone_aggregation == "logsumexp"
        assert again.score_texts(TEXTS) == pytest.approx(scorer.score_texts(TEXTS), abs=1e-5)


def test_every_method_of_a_scorer_is_there_or_says_why_not(models: Models) -> None:
    scorer = models.combined()
    for name in dir(lmfusion.LMFusionScorer):
        if name.startswith("_") or name == "from_pretrained" or hasattr(scorer, name):
            continue
        with pytest.raises(AttributeError, match=rf"components\[NAME\]\.{name} is one model's"):
            getattr(scorer, name)
    with pytest.raises(AttributeError, match="token ids are of one model's vocabulary"):
        _ = scorer.score_token_paths
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = scorer.nonsense
