"""`lmfusion brain-to-text`: in place of the benchmark's rescorer, over a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmfusion.cli.output import AsJson, Steps, note, print_json
from lmfusion.cli.scorer_options import ChosenScorer, scores
from lmfusion.pipelines.brain_to_text import (
    ACOUSTIC_SCALE,
    ALPHA,
    LENGTH_PENALTY,
    gpt2_lm_decode,
)
from lmfusion.replaced_file import replaced


@scores(without=("weight", "word_insertion_bonus", "bos", "bos_id"))
def brain_to_text(
        scorer: ChosenScorer,
        nbest: Annotated[Path, typer.Argument(
            metavar="NBEST", help='lines "text;acoustic;ngram", an empty line between utterances')],
        output: Annotated[Path | None, typer.Option(
            "-o", "--output", metavar="FILE",
            help='lines "text;acoustic;ngram;llm;total" in the order of NBEST')] = None,
        acoustic_scale: Annotated[float, typer.Option()] = ACOUSTIC_SCALE,
        alpha: Annotated[float, typer.Option(
            help="weight of the language model; 1 - alpha is the n-gram's")] = ALPHA,
        length_penalty: Annotated[float, typer.Option(help="a token")] = LENGTH_PENALTY,
        context: Annotated[str, typer.Option(help="text before every hypothesis")] = "",
        json_: AsJson = False) -> None:
    """Rescore n-best lists by the brain-to-text benchmark's formula and defaults; print the best.

    A line a list: the text with the highest total, empty where the list has no text. An error of
    the model ends the command: no score is replaced by zero.
    """
    from lmfusion.nbest.brain_to_text import fields_of, utterances
    lists = list(utterances(nbest))
    if not lists:
        raise ValueError(f'{nbest} has no lines "text;acoustic;ngram"')
    opened = scorer.open(compat="hf")
    found = []
    with Steps("rescoring", len(lists), "lists") as steps:
        for lines in lists:
            found.append(gpt2_lm_decode(opened, None, None, [fields_of(line) for line in lines],
                                        acoustic_scale, length_penalty, alpha,
                                        returnConfidence=True, current_context_str=context))
            steps.advance(1)
    if output is not None:
        with replaced(output) as temporary:
            temporary.write_text("\n".join("".join(line + "\n" for line in lines)
                                           for _, lines, _ in found), encoding="utf-8")
        note(f"{len(found)} lists in {output}")
    if json_:
        print_json([{"text": text, "confidence": confidence, "lines": lines}
                    for text, lines, confidence in found])
    else:
        for text, _, _ in found:
            print(text)
