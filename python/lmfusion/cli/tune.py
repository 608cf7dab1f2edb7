"""`lmfusion tune`: the weights and the text form that an n-best file with references wants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmfusion.cli.output import AsJson, Steps, note, print_report
from lmfusion.cli.reading_options import reads_nbest
from lmfusion.cli.scorer_options import ChosenScorer, scores

if TYPE_CHECKING:
    from lmfusion.tuning.parts import Parts
    from lmfusion.tuning.text_form import TextForm


@scores(without=("weight", "word_insertion_bonus", "casing", "truecaser", "bos", "bos_id"))
@reads_nbest
def tune(scorer: ChosenScorer, reading: dict[str, Any],
         nbest: Annotated[Path, typer.Argument(metavar="NBEST", help="a file or folder")],
         ref: Annotated[Path | None, typer.Option(
             "--ref", metavar="FILE", help="references: trn, Kaldi text, JSON, lines; default: "
                                           "those in NBEST")] = None,
         output: Annotated[Path, typer.Option(
             "-o", "--output", metavar="FOLDER")] = Path("tuned"),
         casing: Annotated[list[str], typer.Option(
             help="of the texts: none, lower, sentence")] = ["none", "sentence"],  # noqa: B006 (Typer copies lists)
         final: Annotated[list[str], typer.Option(
             help='put after texts without an end mark')] = ["", "."],  # noqa: B006
         prompt: Annotated[list[str], typer.Option(
             help="text before every hypothesis; may be repeated")] = [""],  # noqa: B006
         bos: Annotated[list[str], typer.Option(
             help="start tokens to try, as the scorer's option")] = ["auto"],  # noqa: B006
         history: Annotated[list[int], typer.Option(
             help="so many of the recogniser's answers before are read before every hypothesis; "
                  "may be repeated")] = [0],  # noqa: B006
         session: Annotated[str, typer.Option(
             metavar="PATTERN", help="what it finds in an utterance's name is the session whose "
                                     "answers count; default: all are one")] = "",
         folds: Annotated[int, typer.Option(help="of the utterances")] = 5,
         seed: Annotated[int, typer.Option(help="of folds and bootstrap")] = 0,
         json_: AsJson = False) -> None:
    """Find the weights and the text form with the fewest word errors, and say how sure that is.

    FOLDER gets settings.json (for `lmfusion rescore --settings`), report.html, tune.png, and
    parts.npz, with which the next call computes only what is not there. Several --casing, --final,
    --prompt, --bos, --history are all tried, in every combination.
    """
    from lmfusion.nbest import read
    from lmfusion.tuning.parts import Parts
    from lmfusion.tuning.references import references_beside, references_of
    from lmfusion.tuning.report import report
    from lmfusion.tuning.search import tune as search
    from lmfusion.tuning.text_form import forms
    tried = forms(casing, final, prompt if "" in prompt else ["", *prompt], bos,
                  history if 0 in history else [0, *history], session)
    document = read(nbest, **reading)
    utterances = list(document)
    names = [each.name for each in utterances]
    references = references_of(names, ref) if ref else references_beside(names, nbest)
    parts = Parts.of(utterances, references, scorer.identity())
    _compute(parts, tried, scorer, output / "parts.npz")
    parts.log_probs = {form: parts.log_probs[form] for form in tried}
    tuned = search(parts, folds=folds, seed=seed)
    found = report(parts, tuned, output, folds=folds, seed=seed)
    print_report(found, json_)
    if not json_:
        note(f"settings: {output / 'settings.json'}   report: {output / 'report.html'}")


def _compute(parts: Parts, tried: list[TextForm], scorer: ChosenScorer, path: Path) -> None:
    """Adds what is not saved yet, and saves after every form."""
    from lmfusion.tuning.parts import Parts
    if path.is_file():
        try:
            parts.take_from(Parts.load(path))
        except ValueError as error:
            note(f"{error}; all parts are computed again")
    open_scorers: dict[str, Any] = {}
    for form in tried:
        if form in parts.log_probs:
            continue
        if form.bos not in open_scorers:
            open_scorers[form.bos] = scorer.open(bos=form.bos)
        with Steps(str(form), int(parts.there.sum())) as steps:
            parts.compute(form, open_scorers[form.bos], steps.advance)
        parts.save(path)
