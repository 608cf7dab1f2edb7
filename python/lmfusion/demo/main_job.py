"""The main job, from sentences to the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lmfusion import LMFusionScorer
from lmfusion.cli.output import note, print_json
from lmfusion.default_model import cache_folder, default_model, source_gguf
from lmfusion.demo.comparison import MODES, BestOnly, Measurement, compare
from lmfusion.demo.lattices import best_paths, read_lattices
from lmfusion.demo.picture import draw
from lmfusion.demo.report import (
    Rescored,
    facts,
    machine,
    print_comparison,
    print_corrections,
    print_error_rates,
)
from lmfusion.demo.rescoring import tune
from lmfusion.demo.utterances import Utterance, sentences, utterances
from lmfusion.demo.workloads import whole_text, workloads

PICTURE = "nbest_rescoring.png"


def run_main_job(out: Path, *, json_: bool = False) -> None:
    """Recognises, rescores, compares; prints to stdout, shows its progress on stderr.

    Args:
        out: folder for the picture.
        json_: print JSON.

    Raises:
        SpeechError: flite is not installed.
        ExportError: the default model cannot be built.
    """
    note("the default model; the first time it is exported, about half a minute")
    model = default_model()
    console = Console(highlight=False, soft_wrap=True)
    with Progress(TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(),
                  TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        note("60 sentences are spoken and recognised: about a minute; a second run reads what was "
             "recognised")
        tuning, test = (_recognized(name, progress) for name in ("tuning", "test"))
        note("3,600 texts are rescored and 30 lattices searched: one and a half minutes")
        rescored = _rescored(model, tuning, test, progress)
        note("tree, grouped and uncached are compared with Hugging Face: about two minutes")
        rows = _compared(model, test, rescored, progress)
    picture = draw(out / PICTURE, rescored.error_rates(), rows, machine())
    if json_:
        print_json(facts(rescored, rows, picture))
        return
    print_error_rates(console, rescored)
    print_corrections(console, rescored)
    print_comparison(console, rows)
    console.print(f"\nThe same as a picture: {picture}")


def _recognized(name: str, progress: Progress) -> list[Utterance]:
    references = sentences(name)
    return list(progress.track(utterances(references, cache_folder() / "demo"),
                               total=len(references), description=f"recognising, {name} set"))


def _rescored(model: Path, tuning: Sequence[Utterance], test: Sequence[Utterance],
              progress: Progress) -> Rescored:
    scorer = LMFusionScorer(str(model), weight=1.0, casing="sentence")

    def log_probs(name: str, spoken: Sequence[Utterance]) -> list[list[float]]:
        return [scorer.score_texts([whole_text(hypothesis.text)
                                    for hypothesis in utterance.recognition.hypotheses])
                for utterance in progress.track(spoken, description=f"rescoring, {name} set")]

    weights = tune(tuning, log_probs("tuning", tuning))
    texts = [weights.best(utterance.recognition.hypotheses, scores)
             for utterance, scores in zip(test, log_probs("test", test), strict=True)]
    lattices = progress.track(read_lattices(test), total=len(test),
                              description="reading lattices")
    paths = best_paths(model, lattices, weights)
    return Rescored(test, texts, weights, len(tuning), paths)


def _compared(model: Path, test: Sequence[Utterance], rescored: Rescored,
              progress: Progress) -> list[Measurement]:
    jobs = workloads(test)
    lists = [utterance.recognition.hypotheses for utterance in test]
    best_only = BestOnly(jobs[-1], [[one.score for one in some] for some in lists],
                         rescored.weights,
                         [[len(one.text.split()) for one in some] for some in lists])
    task = progress.add_task("comparing the modes", total=len(jobs) * (len(MODES) + 1) + 1)
    return compare(model, source_gguf(), jobs, best_only, rescored.lattices,
                   lambda: progress.advance(task))
