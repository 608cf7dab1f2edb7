"""The parts of the main job: lists, weights, workloads, and one sentence from speech to text."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from lmfusion import LMFusionScorer
from lmfusion.demo.comparison import BestOnly, _best_only
from lmfusion.demo.lattices import NGRAM_WEIGHT, best_paths, read_lattices
from lmfusion.demo.recognition import (
    Hypothesis,
    Recognition,
    clean_text,
    distinct_hypotheses,
    recognize,
)
from lmfusion.demo.rescoring import Weights, oracle, tune, word_error_rate
from lmfusion.demo.speech import SpeechError, add_pink_noise, speak
from lmfusion.demo.utterances import Utterance, sentences, utterances
from lmfusion.demo.workloads import Workload, continuations
from lmfusion.demo.yardstick import sentence_case

needs_flite = pytest.mark.skipif(shutil.which("flite") is None,
                                 reason="flite is not installed: apt install flite")


@pytest.mark.parametrize(("raw", "text"), [
    ("<s> the(2) cat <sil> sat </s>", "the cat sat"),
    ("[SPEECH] a(3) b(12) ++NOISE++", "a b"),
    ("don't i'm", "don't i'm"),
    ("<sil>", ""),
])
def test_clean_text(raw: str, text: str) -> None:
    assert clean_text(raw) == text


def test_lists_hold_different_texts_with_their_best_scores() -> None:
    entries = [("<s> a b", -5.0), ("a(2) b", -4.0), ("c", -6.0), ("a <sil> b", -7.0), ("d", -1.0)]
    assert distinct_hypotheses(entries, size=2) == (Hypothesis("a b", -4.0), Hypothesis("c", -6.0))


def test_sentence_sets() -> None:
    test, tuning = sentences("test"), sentences("tuning")
    assert (len(test), len(tuning)) == (30, 30)
    assert len({*test, *tuning}) == 60
    for sentence in [*test, *tuning]:
        assert 6 <= len(sentence.split()) <= 14
        assert all(letter.isalpha() or letter in " '" for letter in sentence)
        assert sentence == sentence.lower().strip()


@pytest.mark.parametrize(("text", "cased"), [
    ("i think i'm late", "I think I'm late"),
    ("what if i.", "What if I."),
    ("'em and i", "'Em and I"),
    ("is it i'll or ill", "Is it I'll or ill"),
    ("", ""),
])
def test_sentence_case(text: str, cased: str) -> None:
    assert sentence_case(text) == cased


def utterance(reference: str, *hypotheses: tuple[str, float]) -> Utterance:
    entries = tuple(Hypothesis(*pair) for pair in hypotheses)
    return Utterance(reference, Recognition(entries[0].text, entries))


def test_weights_decide() -> None:
    hypotheses = (Hypothesis("a b", -10.0), Hypothesis("a b c", -12.0))
    assert Weights(0.0, 0.0).best(hypotheses, [-9.0, -5.0]) == "a b"
    assert Weights(1.0, 0.0).best(hypotheses, [-9.0, -5.0]) == "a b c"
    assert Weights(0.0, 3.0).best(hypotheses, [-9.0, -5.0]) == "a b c"
    assert Weights(1.0, 1.0).total(hypotheses[1], -5.0) == -14.0
    assert Weights(1.0, 1.0).best((), []) == ""


def test_tuning_finds_weights_that_put_the_reference_first() -> None:
    spoken = [utterance("a b", ("a c", -10.0), ("a b", -30.0)),
              utterance("d e", ("d", -20.0), ("d e", -40.0))]
    log_probs = [[-12.0, -8.0], [-9.0, -6.0]]
    weights = tune(spoken, log_probs)
    for each, scores in zip(spoken, log_probs):
        assert weights.best(each.recognition.hypotheses, scores) == each.reference
    harmful = tune(spoken, [scores[::-1] for scores in log_probs])
    assert harmful.weight < weights.weight


def test_oracle_and_error_rate() -> None:
    spoken = utterance("a b c d", ("a x c", 0.0), ("a b c", -1.0), ("x x x x", -2.0))
    assert oracle(spoken) == "a b c"
    assert word_error_rate(["a b c d"], ["a x c"]) == 0.5
    assert word_error_rate(["a b", "c d"], ["a b", ""]) == 0.5


def test_workloads_have_the_sizes_in_their_names() -> None:
    lists = [[f"w{i} w{j} w{i + j} w{j * i} end" for i in range(12)] for j in range(12)]
    for contexts, words in ((1, 5), (10, 5), (100, 2)):
        workload = continuations(lists, contexts=contexts, words=words)
        assert workload.name == f"{contexts} x {words}"
        assert len(set(workload.contexts)) == contexts
        assert {len(set(row)) for row in workload.candidate_words} == {words}
        assert workload.candidates == contexts * words
        assert workload == continuations(lists, contexts=contexts, words=words)


def test_the_best_text_only_is_that_of_all_scores(default_model: Path) -> None:
    lists = (("the cat sat on the mat.", "the cats at on the mat."), ("a b.",), ("i am.", "i'm."))
    workload = Workload("3 n-best lists", lists=lists)
    asked = BestOnly(workload, [[-3.0, -2.0], [0.0], [0.0, -90.0]], Weights(2.0, 1.0),
                     [[6, 6], [2], [2, 1]])
    scores = LMFusionScorer(default_model, casing="sentence").score_texts(
        [text for texts in lists for text in texts])
    assert asked.expected(scores) == [0, 0, 0]
    row = _best_only(default_model, asked, 1.0, scores)
    assert row.difference < 1e-3
    assert row.candidates == 5
    with pytest.raises(RuntimeError, match="are not those of the lists scored whole"):
        _best_only(default_model, asked, 1.0, [scores[0], 0.0, *scores[2:]])


@pytest.mark.parametrize("snr_db", [0.0, 28.0])
def test_noise_has_the_stated_power(snr_db: float) -> None:
    tone = (8000 * np.sin(np.arange(32_000) / 7)).astype(np.int16)
    noisy = add_pink_noise(tone, snr_db=snr_db, seed=3)
    noise = noisy.astype(np.float64) - tone
    found = 10 * math.log10(np.mean(tone.astype(np.float64) ** 2) / np.mean(noise**2))
    assert found == pytest.approx(snr_db, abs=0.1)
    assert np.array_equal(noisy, add_pink_noise(tone, snr_db=snr_db, seed=3))
    assert not np.array_equal(noisy, add_pink_noise(tone, snr_db=snr_db, seed=4))
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert power[100:200].mean() > 4 * power[1600:3200].mean()  # 4 octaves, 3 dB each


@needs_flite
def test_one_sentence_from_speech_to_list() -> None:
    sentence = "the weather is very nice today"
    recognition = recognize(speak(sentence), size=5)
    texts = [hypothesis.text for hypothesis in recognition.hypotheses]
    assert len(texts) == len(set(texts)) == 5
    assert min(word_error_rate([sentence], [text]) for text in texts) < 0.5
    assert all(hypothesis.score < 0 for hypothesis in recognition.hypotheses)


@needs_flite
def test_recognised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "we had soup for lunch"
    first = list(utterances([sentence], tmp_path))
    monkeypatch.setenv("PATH", "")  # no flite any more
    assert list(utterances([sentence], tmp_path)) == first
    with pytest.raises(SpeechError, match="flite"):
        list(utterances([sentence + " again"], tmp_path))


@needs_flite
def test_the_lattice_of_a_sentence_has_a_path_above_its_list(default_model: Path) -> None:
    recognition = recognize(speak("the weather is very nice today"))
    spoken = [Utterance("", recognition), Utterance("", Recognition("", ()))]
    weights = Weights(2.5, 25.0)
    [lattice, none] = lattices = list(read_lattices(spoken))
    assert none is None
    found = best_paths(default_model, lattices, weights)
    assert found.texts[1] == "" and found.proven == 2 and found.tokens > 0
    plain = LMFusionScorer(default_model, casing="sentence", mode="uncached")
    assert found.log_probs[0] == pytest.approx(plain.score_texts([found.texts[0] + "."])[0],
                                               abs=1e-2)
    # No text of the list has a better total by the lattice's own scores.
    best = plain.best_path(lattice, weight=0.0, ngram_weight=NGRAM_WEIGHT, n=200,
                           word_insertion_bonus=weights.word_insertion_bonus)
    texts = [path.text for path in best.paths]
    totals = [path.total + weights.weight * log_prob for path, log_prob in
              zip(best.paths, plain.score_texts([text + "." for text in texts[:20]]))]
    assert found.texts[0] == texts[totals.index(max(totals))]


@needs_flite
def test_the_quick_demo_as_json(default_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lmfusion.cli import main
    assert main(["demo", "--quick", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["said"] == sentences("test")[0]
    assert found["rescored"] + "." == found["hypotheses"][0]["text"]
    [words] = [words for text, words in found["words"].items() if text == found["rescored"] + "."]
    assert sum(log_prob for _, log_prob in words) == pytest.approx(
        found["hypotheses"][0]["log_prob"], abs=1e-3)


@needs_flite
def test_the_quick_demo_shows_one_sentence_and_why(default_model: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    from lmfusion import LMFusionScorer
    from lmfusion.cli import main
    assert main(["demo", "--quick"]) == 0
    captured = capsys.readouterr()
    said, recognised, rescored = (line.split(":", 1)[1].strip() for line
                                  in captured.out.splitlines() if line.startswith("  ") and
                                  line.split(":")[0].strip() in ("said", "recognised", "rescored"))
    assert said == sentences("test")[0]
    assert word_error_rate([said], [rescored]) < word_error_rate([said], [recognised])
    [wanted] = LMFusionScorer(default_model, casing="sentence", mode="uncached").score_texts(
        [rescored + "."])
    assert "log p of every word" in captured.out
    assert any(line.split()[:1] == [f"{wanted:.2f}"] for line in captured.out.splitlines())
    assert "seconds" in captured.err  # says what takes long
