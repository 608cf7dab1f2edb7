"""Programs in place of those of Kaldi and of the brain-to-text benchmark, by their contracts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_models
import torch
from lmfusion import LMFusionScorer
from lmfusion.cli import main
from lmfusion.exporter import export
from lmfusion.pipelines.brain_to_text import build_opt, gpt2_lm_decode, rescore_with_gpt2
from oracle import Oracle

EOS = 2  # of the tiny tokenizer
NBEST = [("the cat sat .", -10.5, -4.0), ("  ", -1.0, -1.0), ("the  cats > sat", -9.0, -6.5),
         ("a mat", -12.0, -3.0)]
WRITTEN = ["the cat sat.", "the cats sat", "a mat"]  # as the benchmark's program writes them


def test_kaldis_sums_are_hugging_faces(bundle: Path, oracle: Oracle, tmp_path: Path) -> None:
    infile, outfile = tmp_path / "words_text", tmp_path / "lmwt.nn"
    infile.write_text("en_4156-A_1-2-1 the cat\nen_4156-A_1-2-2 the cats sat\nb-1\nb-3 a\n")
    arguments = ["--infile", str(infile), "--outfile", str(outfile), "--vocabulary", "words.txt",
                 "--model-path", str(bundle), "--model", "Transformer", "--emsize", "768", "--nhid",
                 "768", "--nlayers", "6", "--nhead", "8", "--oov", "'<unk>'"]
    assert main(["compute-sentence-scores", *arguments]) == 0
    lines = outfile.read_text().splitlines()
    wanted = {"en_4156-A_1-2-1": "the cat", "en_4156-A_1-2-2": "the cats sat", "b-1": "",
              "b-2": "a"}  # Kaldi's program numbers an utterance's hypotheses anew
    assert [line.split()[0] for line in lines] == list(wanted)
    eos = LMFusionScorer(bundle).description["eos_token_id"]
    for line, text in zip(lines, wanted.values()):
        costs = [float(field) for field in line.split()[1:]]
        assert line.endswith(" ") and len(costs) == len(text.split()) + 1
        assert sum(costs) == pytest.approx(-oracle.text(text, eos=eos), abs=2e-3)
    assert main(["compute-sentence-scores", *arguments, "--no-end"]) == 0
    first = outfile.read_text().splitlines()[0].split()
    assert sum(map(float, first[1:])) == pytest.approx(-oracle.text("the cat"), abs=2e-3)


def test_kaldi_mistakes(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    infile, outfile = tmp_path / "words_text", tmp_path / "lmwt.nn"
    infile.write_text("\n")
    assert main(["compute-sentence-scores", "--infile", str(infile), "--outfile", str(outfile),
                 "--model", "LSTM"]) == 2
    assert "--model-path" in capsys.readouterr().err
    assert main(["compute-sentence-scores", "--infile", str(infile), "--outfile", str(outfile),
                 "--model-path", str(bundle)]) == 2
    assert "no hypotheses" in capsys.readouterr().err and not outfile.exists()


@pytest.fixture(scope="module", params=[True, False], ids=["start token", "no start token"])
def hugging_face(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
                 ) -> tuple[Path, object, object]:
    """A bundle, and what the benchmark's program would open."""
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    tokenizer = tiny_models.tiny_tokenizer(adds_bos=request.param)
    path = export(model, tokenizer, tmp_path_factory.mktemp("b2t") / "tiny.lmf")
    return path, model, tokenizer


def its_score(model: object, tokenizer: object, text: str, penalty: float) -> float:
    """As the benchmark's program has it: all tokens but the first of tokenizer(text)."""
    ids = tokenizer(text)["input_ids"]  # type: ignore[operator]
    with torch.no_grad():
        rows = model(torch.tensor([ids])).logits[0].log_softmax(-1)  # type: ignore[operator]
    return sum(float(rows[i - 1, ids[i]]) for i in range(1, len(ids))) - len(ids) * penalty


def test_brain_to_text_by_its_formula(hugging_face: tuple[Path, object, object]) -> None:
    path, model, tokenizer = hugging_face
    scorer, nothing = build_opt(str(path))
    best, lines, confidence = gpt2_lm_decode(scorer, nothing, None, NBEST, 0.3, 0.25, 0.55,
                                             returnConfidence=True)
    llm = [its_score(model, tokenizer, text, 0.25) for text in WRITTEN]
    kept = [NBEST[0], NBEST[2], NBEST[3]]
    totals = [0.3 * acoustic + 0.45 * ngram + 0.55 * score
              for (_, acoustic, ngram), score in zip(kept, llm)]
    assert best == WRITTEN[totals.index(max(totals))]
    for line, row, score, total in zip(lines, kept, llm, totals, strict=True):
        fields = line.rsplit(";", 4)
        assert fields[:3] == [row[0], str(row[1]), str(row[2])]
        assert [float(field) for field in fields[3:]] == pytest.approx([score, total], abs=1e-3)
    share = [math.exp(total - max(totals)) for total in totals]
    assert confidence == pytest.approx(1 / sum(share), abs=1e-3)
    assert gpt2_lm_decode(scorer, None, None, [("", 0, 0)], 0.3, 0.0, 0.5) == ("", [])


def test_brain_to_text_with_a_context(hugging_face: tuple[Path, object, object]) -> None:
    path, model, tokenizer = hugging_face
    scorer = LMFusionScorer(path, compat="hf")
    best, lines = gpt2_lm_decode(scorer, None, None, NBEST[2:], 0.0, 0.0, 1.0,
                                 current_context_str="on the mat")
    wanted = [its_score(model, tokenizer, f"on the mat {text}", 0.0) for text in WRITTEN[1:]]
    assert [float(line.rsplit(";", 2)[1]) for line in lines] == pytest.approx(wanted, abs=1e-3)
    assert best == WRITTEN[1:][wanted.index(max(wanted))]


def test_a_model_that_fails_gives_no_zeros(bundle: Path) -> None:
    scorer = LMFusionScorer(bundle, compat="hf", kv_cache_bytes=3000)
    with pytest.raises(Exception, match="kv_cache_bytes"):
        rescore_with_gpt2(scorer, None, None, ["the cat sat on a mat"])


def test_brain_to_text_command(bundle: Path, tmp_path: Path,
                               capsys: pytest.CaptureFixture[str]) -> None:
    nbest, output = tmp_path / "nbest.txt", tmp_path / "scored.txt"
    nbest.write_text("the cat;-10.5;-4.0\na mat;-12;-3\n\ni;-1;-2\n")
    assert main(["brain-to-text", "--model", str(bundle), str(nbest), "-o", str(output)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    scorer = LMFusionScorer(bundle, compat="hf")
    _, lines = gpt2_lm_decode(scorer, None, None, [("the cat", -10.5, -4.0), ("a mat", -12, -3)])
    assert output.read_text().split("\n\n")[0].splitlines() == lines
    assert output.read_text().count("\n\n") == 1
    acoustic, ngram, llm, total = map(float, lines[0].split(";")[1:])
    assert total == pytest.approx(0.3 * acoustic + 0.5 * ngram + 0.5 * llm)  # its defaults
