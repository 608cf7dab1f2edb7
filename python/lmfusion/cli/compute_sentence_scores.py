"""`lmfusion compute-sentence-scores`: in place of Kaldi's program of that name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lmfusion.cli.output import AsJson, Steps, note, print_json
from lmfusion.cli.scorer_options import MODEL_HELP, ChosenScorer, scores

NETWORKS = ("LSTM", "GRU", "RNN", "RNN_TANH", "RNN_RELU", "Transformer")  # Kaldi's --model
_Unused = Annotated[str | None, typer.Option(hidden=True)]


@scores()
def compute_sentence_scores(
        scorer: ChosenScorer,
        infile: Annotated[Path, typer.Option(help='lines "utterance-N words"')],
        outfile: Annotated[Path, typer.Option(help='lines "utterance-N cost cost ..."')],
        model_path: Annotated[str | None, typer.Option(
            "--model-path", metavar="MODEL", help=f"{MODEL_HELP}; before --model")] = None,
        end: Annotated[bool, typer.Option(
            help="a cost of the end-of-text token too, as Kaldi's program has")] = True,
        vocabulary: _Unused = None, emsize: _Unused = None, nhid: _Unused = None,
        nlayers: _Unused = None, nhead: _Unused = None, oov: _Unused = None,
        sent_boundary: _Unused = None, json_: AsJson = False) -> None:
    """Write -log p of every word of Kaldi's n-best texts, for lmrescore_nbest_pytorchnn.sh.

    Takes the options that the script gives to steps/pytorchnn/compute_sentence_scores.py; what
    describes a network of Kaldi's (--vocabulary, --model LSTM, --emsize, ...) is not used.
    """
    from lmfusion.pipelines.kaldi import read_sentences, write_sentence_scores
    del vocabulary, emsize, nhid, nlayers, nhead, oov, sent_boundary
    if model_path is not None:
        scorer = replace(scorer, model=model_path)
    elif scorer.model in NETWORKS:
        raise ValueError(f"--model {scorer.model} is a kind of Kaldi's networks; give --model-path "
                         "with a model of lmfusion")
    texts = sum(map(len, read_sentences(infile).values()))
    with Steps("scoring", texts) as steps:
        count = write_sentence_scores(scorer.open(), infile, outfile, end=end,
                                      advance=steps.advance)
    if json_:
        print_json({"output": str(outfile), "hypotheses": count})
    else:
        note(f"{count} hypotheses in {outfile}")
