"""`lmfusion tune` and `compare`: forms, parts, the search, the files around them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lmfusion import LMFusionScorer
from lmfusion.cli import main
from lmfusion.cli.scorer_options import ChosenScorer
from lmfusion.nbest import Hypothesis, Utterance
from lmfusion.nbest.ranking import Weights
from lmfusion.tuning import search
from lmfusion.tuning.parts import Parts
from lmfusion.tuning.references import best_texts, references_beside, references_of
from lmfusion.tuning.settings import Settings
from lmfusion.tuning.statistics import compare
from lmfusion.tuning.text_form import TextForm, forms, is_bare
from oracle import Oracle

PLAIN = TextForm()
TEXTS = ["i think i'm late", "the cat sat", "(well) i do", "", "done."]


# --- forms ---

def test_forms_of_texts() -> None:
    form = TextForm("sentence", ".")
    assert [form.text(text) for text in TEXTS] == [
        "I think I'm late.", "The cat sat.", "(Well) I do.", "", "Done."]
    assert form.text("MISTER I DO") == "Mister I do."
    assert TextForm("lower").text("MISTER Quilter") == "mister quilter"
    assert TextForm().text("as It is") == "as It is"
    assert len(forms()) == 4 and len(set(forms(prompts=["", "x"], starts=["auto", "none"]))) == 16
    with pytest.raises(ValueError, match="casing = 'sideways'"):
        TextForm("sideways")
    assert is_bare(["the cat", "it's"]) and is_bare(["THE CAT"]) and not is_bare(["the cat."])
    assert is_bare(["the cat"] * 19 + ["it is mr."]) and not is_bare(["the cat", "it is mr."])
    assert not is_bare(["The cat"]) and not is_bare([])


def test_sentence_form_is_the_scorers_sentence_casing(bundle: Path) -> None:
    wanted = LMFusionScorer(bundle, casing="sentence").score_texts(TEXTS)
    found = TextForm("sentence").log_probs(LMFusionScorer(bundle), TEXTS)
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_prompt_is_read_and_not_counted(bundle: Path, oracle: Oracle) -> None:
    form = TextForm(prompt="the cat sat on")
    found = form.log_probs(LMFusionScorer(bundle), ["a mat", "the mat"])
    wanted = [oracle.text(f"the cat sat on {text}") - oracle.text("the cat sat on")
              for text in ("a mat", "the mat")]
    assert found == pytest.approx(wanted, abs=1e-3)


# --- the search ---

def lists(seed: int, utterances: int = 120, hypotheses: int = 8
          ) -> tuple[list[Utterance], list[str], np.random.Generator]:
    """Lists whose references stand somewhere in them."""
    generator = np.random.default_rng(seed)
    made = [Utterance(f"u{number}", [
        Hypothesis(" ".join(generator.choice(list("abcdefgh"), generator.integers(3, 9))),
                   float(generator.normal()), None, float(generator.normal()))
        for _ in range(generator.integers(1, hypotheses + 1))]) for number in range(utterances)]
    references = [each.hypotheses[generator.integers(len(each.hypotheses))].text for each in made]
    return made, references, generator


def scored(seed: int, *, informed: float) -> Parts:
    """Log p that know the errors (`informed`), or are noise (0)."""
    made, references, generator = lists(seed)
    parts = Parts.of(made, references, "a model")
    parts.log_probs[PLAIN] = np.where(
        parts.there, -informed * parts.errors + generator.normal(size=parts.errors.shape), 0)
    return parts


def test_points_are_what_the_ranking_chooses() -> None:
    """The errors of planes against nbest's own ranking of the same lists."""
    made, references, generator = lists(1, utterances=25)
    parts = Parts.of(made, references, "a model")
    parts.log_probs[PLAIN] = np.where(parts.there, generator.normal(size=parts.errors.shape), 0)
    fold_of = generator.permutation(25) % 3
    planes = list(search._planes(parts, fold_of, 3, search.NORMALIZATIONS))
    assert {plane.ngram for plane in planes} != {0.0}
    for _ in range(60):
        plane = planes[generator.integers(len(planes))]
        ratio, bonus = (int(generator.integers(size)) for size in plane.bonus.shape)
        weights = plane.weights(ratio, bonus)
        wanted = [0, 0, 0]
        for row, utterance in enumerate(made):
            log_probs = parts.log_probs[PLAIN][row, :len(utterance.hypotheses)]
            best = weights.ranked(utterance, log_probs)[0]
            wanted[fold_of[row]] += int(parts.errors[row, best.index])
        assert plane.errors[ratio, bonus].tolist() == wanted


def test_what_helps_is_found_and_held_out() -> None:
    parts = scored(2, informed=3.0)
    tuned = search.tune(parts)
    before = parts.alignments([0] * len(parts.names))
    result = compare(before, parts.alignments(list(tuned.held_out)))
    assert result.is_better and result.rate_after < 0.3 * result.rate_before
    assert tuned.settings.weights.weight > 0
    assert tuned.points > 1000 and tuned.points / tuned.seconds > 2000
    assert (search.choose(parts, tuned.settings) == tuned.chosen).all()


def test_noise_is_not_sold_as_a_gain() -> None:
    claims = 0
    for seed in range(10):
        parts = scored(10 + seed, informed=0.0)
        for row, reference in enumerate(parts.references):  # the first is right in most lists
            if row % 3:
                parts.texts[row][0] = reference
                parts.errors[row, 0] = 0
        parts.score = np.where(parts.there, -np.arange(parts.there.shape[1]), 0.0)
        tuned = search.tune(parts)
        claims += compare(parts.alignments([0] * len(parts.names)),
                          parts.alignments(list(tuned.held_out))).is_better
    assert claims <= 1


def test_the_better_form_is_chosen() -> None:
    parts = scored(3, informed=0.0)
    good = TextForm("sentence", ".")
    parts.log_probs[good] = np.where(parts.there, -2.0 * parts.errors, 0)
    assert search.tune(parts).settings.form == good


def test_lists_without_scores_are_taken_by_their_order() -> None:
    parts = scored(4, informed=0.0)
    parts.score[:] = 0
    parts.ngram[:] = 0
    tuned = search.tune(parts)
    weights = tuned.settings.weights
    assert weights.acoustic_weight == 0 and weights.rank_weight in (0.0, 1.0)
    plain = Weights(weight=0.0, acoustic_weight=0.0, rank_weight=1.0)
    assert (search.choose(parts, Settings(plain, PLAIN)) == 0).all()


def test_empty_lists_count_as_missing_words() -> None:
    made, references, generator = lists(5, utterances=12)
    made[3] = Utterance("empty", [])
    parts = Parts.of(made, references, "a model")
    parts.log_probs[PLAIN] = np.where(parts.there, generator.normal(size=parts.errors.shape), 0)
    tuned = search.tune(parts, folds=3)
    found = parts.alignments(list(tuned.chosen))[3]
    assert found.deletions == found.words == len(references[3].split())
    ratio, bonus = tuned.best
    assert tuned.plane.errors[ratio, bonus].sum() == sum(
        each.errors for each in parts.alignments(list(tuned.chosen)))
    with pytest.raises(ValueError, match="12 utterances in 13 folds"):
        search.tune(parts, folds=13)


# --- files ---

def test_settings_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    settings = Settings(Weights(1.5, -2.0, 0.5, 0.25, 0.5, 1.0), TextForm("sentence", ".", "x"))
    settings.write(path, anything=1)
    assert Settings.read(path) == settings
    for content, message in (("{", "not JSON"), ('{"weigth": 1}', "'weigth' is no setting"),
                             ('{"weight": "1"}', "weight = '1'; a number"),
                             ('{"form": {"casing": 3}}', "casing = 3; a text"),
                             ('[1]', "an object"), ('{"form": {"casing": "up"}}', "casing = 'up'")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            Settings.read(path)


def test_references_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "ref"
    wanted = ["the cat", "a mat"]
    for content in ("the cat (u1)\na mat (u2)\n", ";; x\na mat (u2)\nthe cat (u1)\n",
                    "u2 a mat\nu1 the cat\n", "the cat\na mat\n",
                    '#!MLF!#\n"*/u2.lab"\na\nmat\n.\n"*/u1.lab"\n0 5 the\n5 9 cat\n.\n',
                    "utt,text,score,ref\nu2,x,-1,a mat\nu1,x,-1,the cat\nu2,z,-1,a mat\n",
                    '{"u1": "the cat", "u2": "a mat"}',
                    '{"utt": "u2", "ref": "a mat"}\n{"utt": "u1", "ref": "the cat"}\n',
                    '[{"id": "u1", "text": "the cat"}, {"id": "u2", "text": "a mat"}]',
                    '{"utts": {"u1": {"output": [{"text": "the cat", "rec_text": "x"}]}, '
                    '"u2": {"output": [{"text": "a mat", "rec_text": "y"}]}}}',
                    '{"audio_filepath": "u1", "text": "the cat", "pred_text": "x"}\n'
                    '{"audio_filepath": "u2", "text": "a mat", "pred_text": "y"}\n'):
        path.write_text(content)
        assert references_of(["u1", "u2"], path) == wanted, content
    with pytest.raises(ValueError, match="no reference of 1 of 3 utterances; the first is 'u3'"):
        references_of(["u1", "u2", "u3"], path)
    path.write_text("only one\n")
    with pytest.raises(ValueError, match="1 references for 2 utterances"):
        references_of(["u1", "u2"], path)
    path.write_text('{"utt": "u1", "text": "a hypothesis", "score": -1.0}\n')
    with pytest.raises(ValueError, match="no references"):
        references_of(["u1"], path)
    assert best_texts(path) == [("u1", "a hypothesis")]
    path.write_text("u1 the cat\nu2\n")
    assert best_texts(path) == [("u1", "the cat"), ("u2", "")]
    path.write_text("spk-1\tthe cat\nspk-2\ta mat\n")  # Kaldi's with a tab
    assert best_texts(path) == [("spk-1", "the cat"), ("spk-2", "a mat")]
    assert references_of(["spk-2", "spk-1"], path) == wanted[::-1]
    assert references_of([None, None], path) == wanted  # a NeMo .tsv has no ids: by place


def test_hypotheses_are_no_references(tmp_path: Path) -> None:
    """Where --ref is left out, only what stands beside hypotheses is a reference."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"utt": ["u1", "u1", "u2"], "text": ["x", "y", "z"],
                           "score": [-1.0, -2.0, -3.0],
                           "reference": ["the cat", "the cat", "a mat"]})
    path = tmp_path / "nbest"
    parquet.write_table(table, path)
    assert references_beside(["u2", "u1"], path) == ["a mat", "the cat"]
    assert references_of(["u2", "u1"], path) == ["a mat", "the cat"]
    parquet.write_table(table.drop_columns(["reference"]), path)
    with pytest.raises(ValueError, match=r"has no references: none of ref, .* --ref"):
        references_beside(["u1", "u2"], path)
    for content in ("x (u1)\ny (u1)\nz (u2)\n", '#!MLF!#\n"*/u1.rec"\nx -1\n.\n', "u1 x\nu2 z\n",
                    '{"u1": "x", "u2": "z"}', '[{"id": "u1", "text": "x"}]'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"no references.* with --ref"):
            references_beside(["u1", "u2"], path)
    with pytest.raises(ValueError, match=r"no references beside its hypotheses"):
        references_beside(["u1"], tmp_path)  # a folder of ESPnet, say
    path.write_text("x (u1)\ny (u1)\n")
    with pytest.raises(ValueError, match="several texts of 'u1'"):
        references_of(["u1"], path)


def test_first_words_of_lines_are_no_ids(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for content in ("the cat\na mat\n", "2 cats\n", "the cat\n3 mats\n", "the cat\n\n"):
        path.write_text(content)
        assert best_texts(path) == [(None, line) for line in content.splitlines()], content


@pytest.fixture
def nbest_file(tmp_path: Path) -> Path:
    made, references, _ = lists(6, utterances=20, hypotheses=4)
    path = tmp_path / "nbest.jsonl"
    path.write_text("".join(json.dumps(
        {"utt": each.name, "ref": reference, "nbest": [[one.text, one.score]
                                                       for one in each.hypotheses]}) + "\n"
        for each, reference in zip(made, references)))
    return path


def test_the_command_tunes_and_computes_once(nbest_file: Path, bundle: Path, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tuned"
    command = ["tune", "--model", str(bundle), str(nbest_file), "-o", str(out), "--prompt", "the"]
    assert main([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["by_form"]) == 8 and facts["held_out"]["utterances"] == 20
    settings = Settings.read(out / "settings.json")
    assert settings.weights == Weights(**{name: value for name, value in facts["settings"].items()
                                          if name != "form"})
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page and "http" not in page
    assert page.count("<td>u") == page.count("&rarr;") > 0
    assert (out / "tune.png").read_bytes().startswith(b"\x89PNG")
    # Again, in fewer forms: nothing may be scored.
    monkeypatch.setattr(ChosenScorer, "open", None)
    assert main([*command, "--casing", "sentence", "--folds", "4"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].startswith("\tWER %\t95 % interval")
    assert "20 utterances are few" in captured.err
    with pytest.raises(TypeError):  # another form is not there
        main([*command, "--casing", "lower"])


def test_saved_parts_of_other_lists_are_not_used(nbest_file: Path) -> None:
    parts, other = scored(7, informed=1.0), scored(8, informed=1.0)
    path = nbest_file.with_name("parts.npz")
    parts.save(path)
    loaded = Parts.load(path)
    assert loaded.fingerprint() == parts.fingerprint()
    assert (loaded.log_probs[PLAIN] == parts.log_probs[PLAIN]).all()
    other.log_probs.clear()
    other.take_from(loaded)
    assert other.log_probs == {}
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no parts of `lmfusion tune`"):
        Parts.load(path)


def test_the_command_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, ref = (tmp_path / name for name in ("a.trn", "b.trn", "ref.trn"))
    words = ["one two three four five"] * 30
    ref.write_text("".join(f"{text} (u{i})\n" for i, text in enumerate(words)))
    a.write_text("".join(f"One, two x four five. (u{i})\n" for i in range(30)))
    b.write_text("".join(f"one two {'three' if i % 2 else 'y'} four five (u{i})\n"
                         for i in reversed(range(30))))
    assert main(["compare", str(a), str(b), "--ref", str(ref), "--json", "-o",
                 str(tmp_path / "out")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["rate_before"] == pytest.approx(0.2) and facts["rate_after"] == pytest.approx(0.1)
    assert facts["is_better"] and facts["by_kind"][1]["substitutions"] == pytest.approx(0.1)
    assert (tmp_path / "out" / "compare.html").read_text().count("&rarr;") == 30
    # Lines without ids keep their first words.
    lines = [tmp_path / name for name in ("a.txt", "b.txt", "ref.txt")]
    for path, text in zip(lines, ("a cat sat", "the cat sat", "the cat sat")):
        path.write_text(f"{text}\nit ran\n")
    assert main(["compare", *map(str, lines[:2]), "--ref", str(lines[2]), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["words"], facts["rate_before"], facts["rate_after"]) == (5, 0.2, 0.0)
    b.write_text("one (u0)\n")
    assert main(["compare", str(a), str(b), "--ref", str(ref)]) == 2
    assert "not of the same utterances" in capsys.readouterr().err
