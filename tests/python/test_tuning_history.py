"""Answers before an utterance, in `tune` and in `rescore`, against plain Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lmfusion import LMFusionScorer, nbest
from lmfusion.cli import main
from lmfusion.cli.scorer_options import ChosenScorer
from lmfusion.nbest import Hypothesis, Utterance
from lmfusion.nbest.ranking import Weights
from lmfusion.tuning.history import with_histories
from lmfusion.tuning.parts import Parts
from lmfusion.tuning.settings import Settings
from lmfusion.tuning.text_form import TextForm, forms
from oracle import TOLERANCE, Oracle

LISTS = {"a-1": ["the cat sat", "the cats sat"], "a-2": ["on a mat", "a mat"],
         "b-1": ["i'm the cat", "the cat", "don't"], "a-3": [], "a-4": [" ", "cats"],
         "b-2": ["the mat", "a cat"], "a-5": ["cat", "the cat sat on the mat"]}
# What stands before each text, by hand: within a session, at most two answers that say something.
BEFORE = {"a-1": [], "a-2": ["The cat sat."], "b-1": [], "a-3": ["The cat sat.", "On a mat."],
          "a-4": ["The cat sat.", "On a mat."], "b-2": ["I'm the cat."],
          "a-5": ["The cat sat.", "On a mat."]}
FORM = TextForm("sentence", ".", "a talk:", history=2, session="^(.)-")
WEIGHTS = Weights(0.7, 0.5)


def utterances() -> list[Utterance]:
    return [Utterance(name, [Hypothesis(text.strip(), -float(place), None)
                             for place, text in enumerate(texts)])
            for name, texts in LISTS.items()]


def expected(oracle: Oracle, name: str, text: str) -> float:
    before = " ".join([FORM.prompt, *BEFORE[name]])
    text = FORM.text(text.strip())
    return oracle.text(f"{before} {text}") - oracle.text(before) if text else 0.0


@pytest.fixture
def nbest_file(tmp_path: Path) -> Path:
    path = tmp_path / "nbest.jsonl"
    path.write_text("".join(json.dumps(
        {"utt": name, "ref": "the cat sat", "nbest": [[text, -float(place)] for place, text
                                                      in enumerate(texts)]}) + "\n"
        for name, texts in LISTS.items()))
    return path


def test_a_history_is_what_the_recogniser_said_before() -> None:
    found = {one.name: list(one.history) for one in with_histories(utterances(), FORM)}
    assert found == BEFORE
    one_session = [one.history for one in with_histories(utterances(), TextForm(history=1))]
    assert one_session == [(), ("the cat sat",), ("on a mat",), ("i'm the cat",), ("i'm the cat",),
                           ("i'm the cat",), ("the mat",)]
    assert all(not one.history for one in with_histories(utterances(), TextForm()))
    # What comes later changes nothing, nor what a list has beside its first.
    cut = [Utterance(one.name, one.hypotheses[:1]) for one in utterances()[:4]]
    assert [one.history for one in with_histories(cut, FORM)] == [
        tuple(before) for before in list(BEFORE.values())[:4]]


def test_the_parts_are_hugging_faces(bundle: Path, oracle: Oracle, tmp_path: Path) -> None:
    parts = Parts.of(utterances(), ["the cat sat"] * len(LISTS), "tiny")
    parts.compute(FORM, LMFusionScorer(bundle))
    for row, (name, texts) in enumerate(LISTS.items()):
        for place, text in enumerate(texts):
            assert parts.log_probs[FORM][row, place] == pytest.approx(
                expected(oracle, name, text), abs=40 * TOLERANCE)
    # Saved and read: nothing is computed again.
    parts.save(tmp_path / "parts.npz")
    loaded = Parts.load(tmp_path / "parts.npz")
    assert (loaded.log_probs[FORM] == parts.log_probs[FORM]).all()
    plain = TextForm("sentence", ".", "a talk:")
    parts.compute(plain, LMFusionScorer(bundle))
    assert abs(parts.log_probs[plain] - parts.log_probs[FORM]).max() > 0.01


def test_settings_rescore_with_the_same_history(bundle: Path, oracle: Oracle, nbest_file: Path,
                                                tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    Settings(WEIGHTS, FORM).write(settings)
    assert Settings.read(settings).form == FORM
    command = ["rescore", "--model", str(bundle), "--settings", str(settings), str(nbest_file),
               "-o"]
    whole, sharded, top = (tmp_path / f"{name}.jsonl" for name in ("whole", "sharded", "top"))
    assert main([*command, str(whole), "--hypotheses-a-call", "3"]) == 0
    for number in (3, 1, 2):
        assert main([*command, str(sharded), "--shard", f"{number}/3"]) == 0
    assert main([*command, str(top), "--top", "1"]) == 0
    totals = {utterance: sorted(
        ((-place + 0.7 * expected(oracle, utterance, text) + 0.5 * len(text.split()), text)
         for place, text in enumerate(texts)), reverse=True) for utterance, texts in LISTS.items()}
    for name, one, other, best in zip(LISTS, *(nbest.read(path) for path in (whole, sharded, top))):
        order = [text.strip() for _, text in totals[name]]
        assert [each.text for each in one.hypotheses] == order
        assert [each.text for each in other.hypotheses] == order
        assert [each.text for each in best.hypotheses][:1] == order[:1]
    rows = [line.split("\t") for line in whole.with_name("whole.jsonl.parts.tsv").read_text()
            .splitlines()[1:]]
    for row, (name, text) in zip(rows, [(utterance, text) for utterance in LISTS
                                        for _, text in totals[utterance]], strict=True):
        assert row[0] == name
        assert float(row[3]) == pytest.approx(expected(oracle, name, text), abs=40 * TOLERANCE)


def test_the_commands_options(bundle: Path, nbest_file: Path, tmp_path: Path,
                              monkeypatch: pytest.MonkeyPatch,
                              capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tuned"
    command = ["tune", "--model", str(bundle), str(nbest_file), "-o", str(out), "--folds", "2",
               "--history", "1", "--history", "2", "--session", "^(.)-", "--final", "."]
    assert main([*command, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["by_form"]) == 2 * 3
    monkeypatch.setattr(ChosenScorer, "open", None)
    assert main(command) == 0  # nothing is scored again
    with pytest.raises(TypeError):
        main([*command, "--history", "3"])


def test_histories_that_cannot_be(nbest_file: Path, bundle: Path, tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="history = -1"):
        TextForm(history=-1)
    with pytest.raises(ValueError, match=r"session = '\(' of a text form is no pattern"):
        TextForm(session="(")
    with pytest.raises(ValueError, match="'x-', is not found in 'a-1', the name of utterance 0"):
        list(with_histories(utterances(), TextForm(history=1, session="x-")))
    assert len(forms(histories=[0, 3], session="x")) == 8
    path = tmp_path / "settings.json"
    for content in ('{"form": {"history": "2"}}', '{"form": {"history": true}}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"history = .*; a (text or )?number"):
            Settings.read(path)
    Settings(WEIGHTS, FORM).write(path)
    assert main(["rescore", "--model", str(bundle), "--settings", str(path), str(nbest_file), "-o",
                 str(tmp_path / "x.jsonl"), "--history", "1"]) != 0
    assert "leave out --history" in capsys.readouterr().err
