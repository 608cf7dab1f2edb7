"""Every n-best file and folder: read by its own rules, written back ranked, parts beside.

The files are made here as the toolkits' documentation and sources describe them.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from lmfusion import nbest
from test_nbest import FewerX, espnet_result


def read(path: Path, **options: Any) -> dict[str | None, list[tuple[str, Any]]]:
    return {utterance.name: [(one.text, pytest.approx(one.score)) for one in utterance.hypotheses]
            for utterance in nbest.read(path, **options)}


def rescore(path: Path, **options: Any) -> Path:
    output = path.with_name("ranked_" + path.name)
    assert nbest.rescore(path, FewerX(), output=output, weight=1.0, **options) == output
    return output


TWO: dict[str | None, list[tuple[str, float]]] = {"b": [("xx", -1.0), ("good", -1.5)],
                                                  "a": [("x", -2.0), ("one two", -2.5)]}
RANKED = {name: rows[::-1] for name, rows in TWO.items()}


def test_espnet_folder(tmp_path: Path) -> None:
    path = tmp_path / "decode"
    for rank in (0, 1):
        folder = path / f"{rank + 1}best_recog"
        folder.mkdir(parents=True)
        for name, value in (("text", 0), ("score", 1)):
            form = "tensor({})" if name == "score" else "{}"
            lines = [f"{utterance} {form.format(rows[rank][value])}"
                     for utterance, rows in TWO.items()]
            (folder / name).write_text("\n".join(lines) + "\n")
        (folder / "token").write_text(f"b tokens of b {rank}\na tokens of a {rank}\n")
    (path / "1best_recog" / "encoder_interctc_layer1.txt").write_text("b x\n")
    (path / "2best_recog" / "score").write_text("b -1.5\na tensor(-2.5000, device='cuda:0')\n")
    assert read(path) == TWO
    output = rescore(path)
    assert read(output) == RANKED
    assert (output / "1best_recog" / "token").read_text() == "b tokens of b 1\na tokens of a 1\n"
    assert (output / "1best_recog" / "score").read_text() == (
        "b -1.5\na tensor(-2.5000, device='cuda:0')\n")
    assert (output / "1best_recog" / "encoder_interctc_layer1.txt").exists()
    # An utterance that has fewer hypotheses, an empty text, a score that is missing.
    (path / "2best_recog" / "text").write_text("b\n")
    assert read(path) == {"b": [("xx", -1.0), ("", -1.5)], "a": [("x", -2.0)]}
    assert read(rescore(path))["b"] == [("", -1.5), ("xx", -1.0)]
    (path / "2best_recog" / "score").write_text("a -2.5\n")
    with pytest.raises(ValueError, match=r"utterance 0 \('b'\), hypothesis 1 .*no score"):
        read(path)
    assert read(path, missing="last")["b"] == [("xx", -1.0), ("", -math.inf)]
    (path / "1best_recog" / "text").rename(path / "1best_recog" / "text_spk1")
    with pytest.raises(ValueError, match="text_spk1: give speaker="):
        read(path)


def test_espnet_folder_of_several_speakers(tmp_path: Path) -> None:
    for rank in (0, 1):
        folder = tmp_path / "decode" / f"{rank + 1}best_recog"
        folder.mkdir(parents=True)
        for speaker in (1, 2):
            (folder / f"text_spk{speaker}").write_text(f"u {['xx', 'good'][rank]}\n")
            (folder / f"score_spk{speaker}").write_text(f"u -{rank + speaker}\n")
    assert read(tmp_path / "decode", speaker=2) == {"u": [("xx", -2.0), ("good", -3.0)]}
    output = rescore(tmp_path / "decode", speaker=2)
    assert read(output, speaker=2) == {"u": [("good", -3.0), ("xx", -2.0)]}
    assert read(output, speaker=1) == {"u": [("xx", -1.0), ("good", -2.0)]}  # left alone


def test_espnet_result_json(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    document: dict[str, Any] = {"utts": {name: {"utt2spk": "s", "output": [
        espnet_result(i, *row) for i, row in enumerate(rows, 1)]} for name, rows in TWO.items()}}
    path.write_text(json.dumps(document, indent=4))
    assert read(path) == TWO
    written = json.loads(rescore(path).read_text())
    assert list(written["utts"]) == ["b", "a"]
    assert written["utts"]["b"]["output"] == document["utts"]["b"]["output"][::-1]


def test_nemo_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    lines = [{"audio_filepath": name, "duration": 1.0, "text": "REFERENCE é",
              "pred_text_conformer": rows[0][0], "beams": [list(row) for row in rows]}
             for name, rows in TWO.items()]
    lines.append({"audio_filepath": "c", "text": "REFERENCE", "pred_text": "xx"})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(path) == TWO | {"c": [("xx", 0.0)]}
    output = rescore(path)
    written = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["audio_filepath"] for line in written] == ["b", "a", "c"]
    assert written[0] == lines[0] | {"pred_text_conformer": "good",
                                     "beams": [["good", -1.5], ["xx", -1.0]]}
    assert written[2] == lines[2] and output.read_text().isascii()
    parts = output.with_name(output.name + ".parts.tsv").read_text().splitlines()
    assert parts[0].split("\t") == ["utterance", "rank", "score", "log_prob", "words", "total",
                                    "text"]
    assert parts[1:3] == ["b\t1\t-1.5\t-0\t1\t-1.5\tgood", "b\t2\t-1\t-20\t1\t-21\txx"]
    assert len(parts) == 6
    path.write_text(path.read_text() + '{"audio_filepath": "d"}\n')
    with pytest.raises(ValueError, match="'d' has neither"):
        read(path)
    path.write_text('{"pred_text": "x", "text": "y"}\nnot JSON\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read(path)


def test_nemo_beams_tsv(tmp_path: Path) -> None:
    path = tmp_path / "preds.tsv"
    path.write_text("xx\t-1.0\ngood\t-1.5\nx\t-2\n\t-2.5\n")
    with pytest.raises(ValueError, match="give beam_size="):
        read(path)
    assert [[one.text for one in utterance.hypotheses]
            for utterance in nbest.read(path, beam_size=2)] == [["xx", "good"], ["x", ""]]
    assert rescore(path, beam_size=2).read_text() == "good\t-1.5\nxx\t-1.0\n\t-2.5\nx\t-2\n"
    with pytest.raises(ValueError, match="utterance 2 has 1 lines where beam_size = 3"):
        read(path, beam_size=3)


def test_kaldi_text_with_costs(tmp_path: Path) -> None:
    text, acoustic, graph = tmp_path / "words_text", tmp_path / "acwt", tmp_path / "lmwt.nolm"
    # Kaldi sorts ids as strings: 10 comes before 2.
    text.write_text("utt-b-1 xx\nutt-b-10 x\nutt-b-2 good\na-1 one two\n")
    acoustic.write_text("utt-b-1 1.0\nutt-b-10 3.0\nutt-b-2 1.5\na-1 -4.0\n")
    graph.write_text("utt-b-1 0.5\nutt-b-10 0.5\nutt-b-2 0.5\na-1 0.5\n")
    expected = {"utt-b": [("xx", -1.0), ("good", -1.5), ("x", -3.0)], "a": [("one two", 4.0)]}
    assert read(tmp_path) == read(text, scores=acoustic) == expected  # the folder and the files
    both = {name: [(words, score - 0.5) for words, score in rows]
            for name, rows in expected.items()}
    assert read(text, scores=[acoustic, graph]) == both
    output = rescore(text, scores=[acoustic, graph])
    assert (output / "words_text").read_text() == (
        "utt-b-1 good\nutt-b-2 x\nutt-b-10 xx\na-1 one two\n")
    assert (output / "acwt").read_text() == "utt-b-1 1.5\nutt-b-2 3.0\nutt-b-10 1.0\na-1 -4.0\n"
    with pytest.raises(ValueError, match="known shape"):
        read(text)  # without scores it may be any text


def test_kaldi_scores_of_either_sign(tmp_path: Path) -> None:
    text, scores = tmp_path / "text", tmp_path / "scores"
    text.write_text("u-1 xx\nu-2\n")
    scores.write_text("u-1 -1.0\nu-2 -1.5\n")
    assert read(text, scores=scores) == {"u": [("xx", -1.0), ("", -1.5)]}
    assert read(text, scores=scores, costs=True)["u"][0] == ("xx", 1.0)
    scores.write_text("u-1 1.0\nu-2 1.5\n")
    with pytest.raises(ValueError, match="costs=True"):
        read(text, scores=scores)
    assert read(text, scores=scores, costs=True)["u"][1] == ("", -1.5)
    scores.write_text("u-1 -1.0\n")
    with pytest.raises(ValueError, match="no score"):
        read(text, scores=scores)
    scores.write_text("u-1 -1.0\nu-1 -1.0\n")
    with pytest.raises(ValueError, match="line 2: u-1 is there twice"):
        read(text, scores=scores)


MLF = """#!MLF!#
"*/b.rec"
0 100 SENT-START -0.25
100 200 xx -0.25
200 300 sil -0.5
///
0 100 "good" -1.5
.
"*/a.rec"
0 100 x -2.0
///
0 100 one -1.5
100 200 two -1.0
.
"""


def test_htk_label_file(tmp_path: Path) -> None:
    path = tmp_path / "nbest.mlf"
    path.write_text(MLF)
    assert read(path) == TWO
    output = rescore(path)
    assert read(output) == RANKED
    assert output.read_text().startswith('#!MLF!#\n"*/b.rec"\n0 100 "good" -1.5\n///\n0 100 SENT')
    path.write_text(MLF.removesuffix(".\n"))
    with pytest.raises(ValueError, match='ends within "\\*/a.rec"'):
        read(path)
    path.write_text('#!MLF!#\n"*/b.rec"\nword\n.\n')
    with pytest.raises(ValueError, match="no score"):
        read(path)


@pytest.mark.parametrize("base", ["", "base=10\n"])
def test_htk_lattice(tmp_path: Path, base: str) -> None:
    unit = math.log(10) if base else 1.0
    path = tmp_path / "b.slf"
    path.write_text(f"""VERSION=1.0
UTTERANCE=b
{base}lmscale=10.0 wdpenalty=0.0
N=6 L=6
I=0 t=0.00 W=!NULL
I=1 t=0.10 W=xx
I=2 t=0.10 W=it's
I=3 t=0.20 W=fine
I=4 t=0.30 W=!NULL
I=5 t=0.20 W=good
J=0 S=0 E=1 a={-0.5 / unit} l=-9
J=1 S=1 E=4 a={-0.5 / unit} l=0
J=2 S=0 E=2 a={-1.0 / unit} l=-1
J=3 S=2 E=3 a={-1.0 / unit} l=-1
J=4 S=3 E=4 a=0 l=0
J=5 S=2 E=5 a={-1.5 / unit} l=-1
J=6 S=5 E=4 a=0 l=0
""")
    expected = [("xx", -1.0), ("it's fine", -2.0), ("it's good", -2.5)]
    assert read(path) == {"b": expected}
    output = rescore(path)
    assert read(output) == {"b": [*expected[1:], expected[0]]}
    assert base in output.read_text() and "lmscale=10.0" in output.read_text()


def test_a_lattice_of_too_many_paths_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.slf"
    links = [f"J={2 * i + j} S={i} E={i + 1} W={'ab'[j]} a=-1" for i in range(20) for j in (0, 1)]
    path.write_text("\n".join(["VERSION=1.0", "N=21 L=40", *(f"I={i}" for i in range(21)),
                               *links]) + "\n")
    with pytest.raises(ValueError, match="10000 paths"):
        read(path)


def test_srilm_lists(tmp_path: Path) -> None:
    bytelog = 10000.5 / 1024
    first = tmp_path / "b.nbest"
    first.write_text(f"NBestList1.0\n({-1.0 * bytelog}) xx\n({-1.5 * bytelog}) -pau- good\n")
    assert read(first) == {"b": TWO["b"]}
    assert rescore(first).read_text().splitlines()[1].endswith("-pau- good")
    second = tmp_path / "b.second"
    words = [f"({-1.0 * bytelog}) xx st: 0.00 et: 0.50 g: 0 a: -1 p: 0",
             f"({-1.5 * bytelog}) good st: 0.00 et: 0.50 g: 0 a: -1 p: 0 "
             "g-1 st: 0.00 et: 0.20 g: 0 a: 0 p: 0"]  # a phone of the word
    second.write_text("\n".join(["NBestList2.0", *words]) + "\n")
    assert read(second) == {"b": TWO["b"]}
    assert rescore(second).read_text().splitlines() == ["NBestList2.0", *words[::-1]]
    third = tmp_path / "b.plain.gz"
    with gzip.open(third, "wt") as file:
        file.write(f"{-1.0 / math.log(10)} -9.0 1 <s> xx </s>\n{-1.5 / math.log(10)} -8.0 1 good\n")
    assert read(third) == {"b": TWO["b"]}
    output = third.with_name("ranked.gz")
    nbest.rescore(third, FewerX(), output=output, weight=1.0)
    assert gzip.open(output, "rt").read().splitlines()[0].endswith("good")


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_csv_with_names(tmp_path: Path, suffix: str, delimiter: str) -> None:
    path = tmp_path / f"table.{suffix}"
    rows = [("utt", "n", "text", "score"), ("b", "1", "xx", "-1.0"), ("a", "1", "x", "-2.0"),
            ("b", "2", "good", "-1.5"), ("a", "2", "one two", "-2.5")]
    path.write_text("".join(delimiter.join(row) + "\n" for row in rows))
    assert read(path) == TWO
    assert rescore(path).read_text().splitlines()[1:] == [
        delimiter.join(rows[i]) for i in (3, 4, 1, 2)]
    path.write_text(path.read_text().replace("-1.5", "nan"))
    with pytest.raises(ValueError, match="the score nan"):
        read(path)
    path.write_text(path.read_text().replace("text", "words"))
    names = {"utterance": "utt", "text": "words", "score": "score"}
    assert read(path, columns=names, missing="last")["b"][1] == ("good", -math.inf)


def test_json_lines_of_rows_and_of_lists(tmp_path: Path) -> None:
    path = tmp_path / "nbest.jsonl"
    path.write_text("".join(json.dumps({"utt": name, "nbest": rows}) + "\n"
                            for name, rows in TWO.items()))
    assert read(path) == TWO
    assert read(rescore(path)) == RANKED
    rows = [{"utt": name, "text": text, "score": score}
            for name, rows in TWO.items() for text, score in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(path) == TWO
    assert read(rescore(path)) == RANKED


def test_hypr(tmp_path: Path) -> None:
    """As https://github.com/Alfred0622/HypR shows it, with a language model's scores."""
    rows = [{"utt_id": "1272-0", "ref": "mister quilter", "hyps": ["mister xquilter", "mister"],
             "att_score": [-1.76402, -10.33629], "ctc_score": [-5.13712, -0.45096],
             "lm_score": [-7.0, -8.0], "score": [-3.45057, -5.39363]},
            {"utt_id": "1272-1", "ref": "a", "hyps": ["a"], "att_score": [-1.0],
             "ctc_score": [-1.0], "score": [-1.0]}]
    path = tmp_path / "dev.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert read(path) == {"1272-0": [("mister xquilter", -3.45057), ("mister", -5.39363)],
                          "1272-1": [("a", -1.0)]}
    assert [one.ngram for one in next(iter(nbest.read(path))).hypotheses] == [-7.0, -8.0]
    first = json.loads(rescore(path, acoustic_weight=0.1).read_text().splitlines()[0])
    assert first == {name: value[::-1] if isinstance(value, list) else value
                     for name, value in rows[0].items()}
    document = tmp_path / "dev.json"
    document.write_text(json.dumps(rows))
    assert read(document) == read(path)


def test_a_folder_of_srilm_lists(tmp_path: Path) -> None:
    folder = tmp_path / "nbest"
    folder.mkdir()
    (folder / "b.score").write_text("-1 -3 1 xx\n-1.1 -2 1 good\n")
    (folder / "a.score").write_text("-2 -3 1 x\n")
    e = math.log(10)
    assert read(folder) == {"a": [("x", -2 * e)], "b": [("xx", -e), ("good", -1.1 * e)]}
    assert [one.ngram for one in list(nbest.read(folder))[1].hypotheses] == pytest.approx(
        [-3 * e, -2 * e])
    assert (rescore(folder) / "b.score").read_text() == "-1.1 -2 1 good\n-1 -3 1 xx\n"


@pytest.mark.parametrize("cut", ["-2", "-2 -3", "-2 -3 2", "-2 -3 2 private"])
def test_a_line_of_an_srilm_list_that_was_cut_is_refused(cut: str, tmp_path: Path) -> None:
    """Wherever it stands: the first lines tell what the file is. Fuzzing found "-2" in line 21."""
    path = tmp_path / "b.nbest"
    path.write_text("-2 -3 1 good\n" * 25 + cut + "\n-2 -3 1 good\n")
    with pytest.raises(ValueError, match=r"b\.nbest, hypothesis 25: .* may be cut") as refused:
        read(path)
    assert "private" not in str(refused.value)


def test_a_word_of_an_srilm_list_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.nbest"
    whole = "(-9000) good st: 0.00 et: 0.50 g: 0 a: -1 p: 0"
    path.write_text(f"NBestList2.0\n{whole}\n{whole} private st: 0.50 et: 0.6\n")
    with pytest.raises(ValueError, match=r"hypothesis 1: .* 17 fields found") as refused:
        read(path)
    assert "private" not in str(refused.value)


def test_brain_to_text_lines(tmp_path: Path) -> None:
    path = tmp_path / "nbest.txt"
    path.write_text("xx;-1.0;-7.5\ngood;-1.5;-8\n\nit's; so;-2e1;-3\n")
    assert read(path) == {"0": [("xx", -1.0), ("good", -1.5)], "1": [("it's; so", -20.0)]}
    assert [one.ngram for one in next(iter(nbest.read(path))).hypotheses] == [-7.5, -8.0]
    assert rescore(path).read_text() == ("good;-1.5;-8\nxx;-1.0;-7.5\n\nit's; so;-2e1;-3\n")
    path.write_text("xx;-1.0;-7.5;-3;-4.5\n")
    assert read(path) == {"0": [("xx", -1.0)]}
    path.write_text("xx;-1.0;-7.5\n" * 20 + "xx;-1.0\n")
    with pytest.raises(ValueError, match="7 letters is not text;acoustic;ngram"):
        read(path)


def test_sclite_trn(tmp_path: Path) -> None:
    path = tmp_path / "hyp.trn"
    path.write_text(";; made by hand\nxx (spk1_01)\n(uh) good (spk1_01)\n(spk1_02)\n")
    assert read(path) == {"spk1_01": [("xx", 0.0), ("(uh) good", 0.0)], "spk1_02": [("", 0.0)]}
    assert rescore(path).read_text() == (
        ";; made by hand\n(uh) good (spk1_01)\nxx (spk1_01)\n(spk1_02)\n")


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet
    path = tmp_path / "nbest.parquet"
    table = pyarrow.table({"utt": ["b", "b", "a", "a"], "text": ["xx", "good", "x", "one two"],
                           "score": [-1.0, -1.5, -2.0, -2.5], "other": [1, 2, 3, 4]})
    pyarrow.parquet.write_table(table, path, row_group_size=3)  # "a" is cut in two
    assert read(path) == TWO
    output = rescore(path)
    assert read(output) == RANKED
    ranked = pyarrow.parquet.read_table(output)
    assert ranked["other"].to_pylist() == [2, 1, 4, 3] and ranked.schema == table.schema
    pyarrow.parquet.write_table(table.take([0, 2, 1]), path)
    with pytest.raises(ValueError, match="do not stand together"):
        read(path)


def test_compressed_files_are_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "hyp.trn.gz"
    with gzip.open(path, "wt") as file:
        file.write("xx (a)\ngood (a)\n")
    first = rescore(path).read_bytes()
    assert gzip.decompress(first) == b"good (a)\nxx (a)\n"
    assert first[4:8] == bytes(4)  # no time of writing
    assert rescore(path).read_bytes() == first


def test_files_are_read_and_scored_some_utterances_at_a_time(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmfusion.nbest.ranking.HYPOTHESES_A_CALL", 4)
    path, scorer = tmp_path / "beams.tsv", FewerX()
    path.write_text("xx\t-1\ngood\t-2\n" * 5)
    nbest.rescore(path, scorer, output=tmp_path / "out.tsv", beam_size=2, weight=1.0)
    assert [len(call) for call in scorer.calls] == [4, 4, 2]
    assert (tmp_path / "out.tsv").read_text() == "good\t-2\nxx\t-1\n" * 5


def test_one_transcription_of_whisper_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "audio.json"  # as the command whisper writes it
    path.write_text(json.dumps({"text": " good", "language": "en", "segments": [
        {"text": " good", "tokens": [1, 2], "avg_logprob": -0.5}]}))
    with pytest.raises(ValueError, match=r"is one hypothesis \(Whisper transcribe"):
        read(path)
    path.write_text(f"[{path.read_text()}]")
    assert read(path) == {None: [("good", -1.5)]}


def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("neither this\nnor that\n")
    with pytest.raises(ValueError, match="no n-best file of a known shape; known are: .*ESPnet"):
        nbest.read(path)
    for content in ("", "\n \n"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"some\.txt is empty"):
            nbest.read(path)
    with pytest.raises(FileNotFoundError):
        nbest.read(tmp_path / "missing")
    with pytest.raises(ValueError, match="no n-best file"):
        nbest.read(tmp_path)
    path.write_text("xx\t-1\n")
    with pytest.raises(ValueError, match="give output="):
        nbest.rescore(path, FewerX(), beam_size=1)
    with pytest.raises(ValueError, match="is what is read"):
        nbest.rescore(path, FewerX(), beam_size=1, output=path)
    assert path.read_text() == "xx\t-1\n"
