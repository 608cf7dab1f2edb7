"""N-best documents as tools and people really write them: what varies within one shape."""

from __future__ import annotations

import decimal
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import torch
from lmfusion import nbest
from test_nbest import (
    EspnetHypothesis,
    FewerX,
    IcefallHypothesis,
    NBestHypotheses,
    NemoHypothesis,
)


def found(source: Any, **options: Any) -> list[tuple[str | None, list[tuple[str, float]]]]:
    """[utterances] of (name, [(text, score)])."""
    return [(utterance.name, [(each.text, pytest.approx(each.score))
                              for each in utterance.hypotheses])
            for utterance in nbest.read(source, **options)]


def ranked(source: Any, **options: Any) -> Any:
    return nbest.rescore(source, FewerX(), weight=1.0, **options)


def rewritten(path: Path, content: str | bytes, name: str, **options: Any) -> bytes:
    """What a ranking writes of a file."""
    (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    nbest.rescore(path / name, FewerX(), weight=1.0, output=path / f"out.{name}", **options)
    return (path / f"out.{name}").read_bytes()


def espnet_result(*texts: str) -> dict[str, Any]:
    return {"output": [{"rec_text": text, "score": -1.0 - i, "text": "THE REFERENCE"}
                       for i, text in enumerate(texts)]}


def test_espnet_writes_pieces_and_the_end_into_its_texts() -> None:
    document = {"utts": {"u": espnet_result("▁a▁x<eos>", "▁a▁b<eos>", "<eos>", "a b")}}
    assert found(document) == [("u", [("a x", -1), ("a b", -2), ("", -3), ("a b", -4)])]
    best = ranked(document)["utts"]["u"]["output"]
    assert [each["rec_text"] for each in best] == ["▁a▁b<eos>", "<eos>", "a b", "▁a▁x<eos>"]


def test_espnet_results_of_several_speakers() -> None:
    document = {"utts": {"u": {"output": [espnet_result("x", "one")["output"],
                                          espnet_result("two x", "two")["output"]]},
                         "v": espnet_result("x", "three")}}
    assert [texts for _, texts in found(document)] == [
        [("x", -1), ("one", -2)], [("two x", -1), ("two", -2)], [("x", -1), ("three", -2)]]
    utts = ranked(document)["utts"]
    assert [[each["rec_text"] for each in hypotheses] for hypotheses in utts["u"]["output"]] == [
        ["one", "x"], ["two", "two x"]]
    assert [each["rec_text"] for each in utts["v"]["output"]] == ["three", "x"]
    with pytest.raises(ValueError, match="hypothesis 0 of utterance 'u' of an ESPnet result has no "
                                         '"rec_text"'):
        found({"utts": {"u": {"output": [{"text": "THE REFERENCE"}]}}})


@pytest.mark.parametrize("hypothesis", [EspnetHypothesis(torch.tensor([1]), torch.tensor(-2.0)),
                                        {"yseq": [1], "score": -2.0}], ids=["object", "JSON"])
def test_espnet_speech_to_text(hypothesis: Any) -> None:
    tuples = [("<eng><asr> x", ["<eng>", "x"], [1, 2], "x", hypothesis),
              ("<eng><asr> y", ["<eng>", "y"], [1, 3], "y", hypothesis)]
    assert found(tuples) == [(None, [("x", -2), ("y", -2)])]
    assert ranked(tuples) == tuples[::-1]


def test_nemo_gives_the_best_beside_all() -> None:
    one = [NemoHypothesis(-1.0, [1], "x"), NemoHypothesis(-2.0, [2], "one")]
    other = [NemoHypothesis(torch.tensor(-1.0), torch.tensor([1]), "two")]
    for everything in ([one, other], [NBestHypotheses(one), NBestHypotheses(other)]):
        for best in ([one[0], other[0]], ["x", "two"]):
            document = (best, everything)
            assert found(document) == [(None, [("x", -1), ("one", -2)]), (None, [("two", -1)])]
            first, rest = ranked(document)
            assert [getattr(each, "text", each) for each in first] == ["one", "two"]
            assert [[each.text for each in getattr(part, "n_best_hypotheses", part)]
                    for part in rest] == [["one", "x"], ["two"]]


def test_a_manifest_of_one_line_stays_a_line(tmp_path: Path) -> None:
    line = {"audio_filepath": "a b.wav", "text": "ref", "pred_text": "x",
            "beams": [["x", -1.0], ["good", -2.0]]}
    right = {**line, "pred_text": "good", "beams": [["good", -2.0], ["x", -1.0]]}
    for begin, end in (("", "\n"), ("", ""), ("\n \n", "\n\n"), ("\ufeff", "\r\n")):
        out = rewritten(tmp_path, begin + json.dumps(line) + end, "m.json")
        assert out.decode() == json.dumps(right) + "\n"
    out = rewritten(tmp_path, "\n\n" + json.dumps(line, indent=1), "m.json")
    assert json.loads(out) == right


def test_beams_of_a_manifest_that_are_no_pairs() -> None:
    line = {"audio_filepath": "a", "text": "ref", "pred_text": "x",
            "beams": [{"text": "x", "score": -1}, {"text": "good", "score": -2}]}
    assert ranked([line]) == [{**line, "pred_text": "good", "beams": line["beams"][::-1]}]
    for beams, message in (([["x", -1], ["x", -1, 2]], r"beams\[1\] .* is a list; \[text, score\]"),
                           ([["x", -1], None], r"beams\[1\] .* is a NoneType"),
                           ({"x": -1}, '"beams" of .* is a dict; a list')):
        with pytest.raises(ValueError, match=message):
            found([{**line, "beams": beams}])


def test_records_with_a_reference_and_a_score_are_hypotheses() -> None:
    records = [{"text": "REF", "pred_text": "x", "score": -1.0},
               {"text": "REF", "pred_text": "good", "score": -2.0}]
    assert found(records) == [(None, [("x", -1), ("good", -2)])]
    assert ranked(records) == records[::-1]


@pytest.mark.parametrize("score", [
    torch.tensor([-2.0]), torch.tensor([[-2.0]]), numpy.array([-2.0]), numpy.array(-2.0),
    numpy.float16(-2), numpy.int64(-2), decimal.Decimal(-2)], ids=repr)
def test_scores_of_one_element(score: Any) -> None:
    for hypothesis in (("a", score), {"text": "a", "score": score}):
        assert found([hypothesis]) == [(None, [("a", -2)])]
    data = {"1": IcefallHypothesis([1], score)}
    assert found(data, text=lambda _: "a") == [(None, [("a", -2)])]
    with pytest.raises(ValueError, match="is not a number"):
        found([{"text": "a", "score": torch.tensor([-1.0, -2.0])}])


@pytest.mark.parametrize("name", ["score", "scores", "log_probs", "am_score"])
def test_scores_in_a_list_beside_the_texts(name: str) -> None:
    document = {"utt_id": "u 1", "nbest": ["x", "good"], name: [-1.0, -2.0], "reference": "r",
                "models": ["a", "b"], "more": [1, 2, 3]}
    assert found(document) == [("u 1", [("x", -1), ("good", -2)])]
    right = {**document, "nbest": ["good", "x"], name: [-2.0, -1.0], "models": ["b", "a"]}
    assert ranked(document) == right
    assert ranked({"u": document}) == {"u": right}
    assert ranked([document, document]) == [right, right]


def test_numbers_beside_texts_that_may_be_scores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"texts with numbers beside them \(am\)"):
        found({"nbest": ["x", "good"], "am": [-1.0, -2.0]})


def test_what_pandas_has_for_nothing() -> None:
    table = pandas.DataFrame({"utt": ["a", "a"], "text": ["x", "good"],
                              "score": pandas.array([None, -2], dtype="Int64")})
    with pytest.raises(ValueError, match="hypothesis 0 .* has no score"):
        found(table)
    assert list(ranked(table, missing="last")["text"]) == ["good", "x"]
    for nothing in (None, float("nan"), pandas.NA):
        table = pandas.DataFrame({"utt": ["a", nothing], "text": ["x", "good"],
                                  "score": [-1.0, -2.0]})
        with pytest.raises(ValueError, match="row 1 of the table has no utt"):
            found(table)


@pytest.mark.parametrize("score", ["-1.25", "tensor(-1.25)", "tensor(-1.25, device='cuda:0')",
                                   "np.float32(-1.25)", "numpy.float64(-1.25)", "[-1.25]"])
def test_scores_of_espnet_folders(tmp_path: Path, score: str) -> None:
    folder = tmp_path / "1best_recog"
    folder.mkdir()
    (folder / "text").write_text("\ufeffu1 a\r\n\r\nu2\r\n")
    (folder / "score").write_text(f"u1 {score}\r\nu2 -3\r\n")
    assert found(tmp_path) == [("u1", [("a", -1.25)]), ("u2", [("", -3)])]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_of_tables(tmp_path: Path, delimiter: str) -> None:
    rows = [["utt", "text", "score"], ["a", "x", "-1"], ["b c", "x", "-1"], ["a", "good", "-2"]]
    lines = [delimiter.join(row) for row in rows]
    out = rewritten(tmp_path, "\ufeff" + "\r\n".join(lines) + "\r\n", "t.csv")
    assert out.decode().splitlines() == [lines[0], lines[3], lines[2], lines[1]]


@pytest.mark.parametrize(("row", "reason"), [('"x', "unexpected end of data"),
                                             ('"x" y', "expected after")])
def test_quotes_that_are_not_csv_are_refused(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(f"utt\ttext\tscore\na\t{row}\t-1\na\tgood\t-2\n")
    with pytest.raises(ValueError, match=rf"t\.tsv, line \d: .*{reason}"):
        found(path)


def test_empty_lines_and_texts_of_nemo_beams(tmp_path: Path) -> None:
    out = rewritten(tmp_path, "x\t-1\r\ngood\t-2\r\n\r\nx\t-1\r\n\t-2\r\n\r\n", "b.tsv",
                    beam_size=2)
    assert out == b"good\t-2\nx\t-1\n\t-2\nx\t-1\n"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.txt"])
def test_files_of_another_encoding_are_named(tmp_path: Path, encoding: str, name: str) -> None:
    lines: Sequence[str] = ["utt,text,score", *(f"a,{'e' * i}é,-1" for i in range(30))]
    (tmp_path / name).write_bytes("\n".join(lines).encode(encoding))
    with pytest.raises(ValueError, match=rf"{name} is not UTF-8 \(byte 0x"):
        found(tmp_path / name)
    (tmp_path / name).write_bytes(("utt,text,score\n" + "a,b,-1\n" * 5000).encode()
                                  + "a,é,-1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8|no n-best file"):
        found(tmp_path / name)
