"""`lmfusion rescore`: an n-best file, every list best first."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmfusion.cli.output import AsJson, Steps, note, print_json
from lmfusion.cli.reading_options import reads_nbest
from lmfusion.cli.scorer_options import ChosenScorer, scores

if TYPE_CHECKING:
    from lmfusion.nbest import NBest
    from lmfusion.rescoring.job import Content, Job
    from lmfusion.scaling import Cluster
    from lmfusion.tuning.settings import Settings


@scores(without=())
@reads_nbest
def rescore(scorer: ChosenScorer, reading: dict[str, Any],
            nbest: Annotated[Path, typer.Argument(metavar="NBEST", help="a file or folder")],
            output: Annotated[Path, typer.Option("-o", "--output", metavar="PATH")],
            settings: Annotated[Path | None, typer.Option(
                "--settings", metavar="FILE", help="of `lmfusion tune`")] = None,
            acoustic_weight: Annotated[float, typer.Option(help="of the recogniser's score")] = 1.0,
            ngram_weight: Annotated[float, typer.Option(
                help="of another model's score, where NBEST has it")] = 0.0,
            length_normalization: Annotated[float, typer.Option(
                help="divide by words to this power")] = 0.0,
            final: Annotated[str, typer.Option(
                help="put after texts without an end mark, as the model reads them")] = "",
            prompt: Annotated[str, typer.Option(
                help="read before every text, not counted")] = "",
            history: Annotated[int, typer.Option(
                help="so many of the recogniser's answers before are read before every text, not "
                     "counted")] = 0,
            session: Annotated[str, typer.Option(
                metavar="PATTERN", help="what it finds in an utterance's name is the session whose "
                                        "answers count; default: all are one")] = "",
            top: Annotated[int | None, typer.Option(
                help="put only so many of every list in order, which takes less of the model; the "
                     "others follow as they were")] = None,
            shard: Annotated[str, typer.Option(
                metavar="I/N", help="only this part; the last one to end writes PATH")] = "1/1",
            ray: Annotated[str | None, typer.Option(
                "--ray", metavar="ADDRESS", help='score on a Ray cluster: "local" for one on this '
                'machine, "auto" for the one it belongs to, or an address')] = None,
            actors: Annotated[int | None, typer.Option(
                "--actors", help="scorers on the cluster; default: as many as fit")] = None,
            actor_cpus: Annotated[float, typer.Option(
                "--actor-cpus", help="cores of an actor")] = 1.0,
            actor_gpus: Annotated[float, typer.Option(
                "--actor-gpus", help="GPUs of an actor")] = 0.0,
            keep_journals: Annotated[bool, typer.Option(
                "--keep-journals", help="do not remove PATH.shard-I-of-N.journal at the end")]
            = False,
            hypotheses_a_call: Annotated[int, typer.Option(help="of the model")] = 2048,
            json_: AsJson = False) -> None:
    """Rank the hypotheses of every utterance with the language model; write the same format.

    Run again after a kill it goes on where it was. PATH.parts.tsv has the parts of every total.
    """
    from lmfusion.nbest import read
    from lmfusion.nbest.ranking import Weights
    from lmfusion.rescoring import job as jobs
    from lmfusion.rescoring.journal import Shard
    from lmfusion.tuning.settings import Settings
    from lmfusion.tuning.text_form import TextForm
    if settings is None:
        chosen = Settings(Weights(scorer.options["weight"], scorer.options["word_insertion_bonus"],
                                  acoustic_weight, ngram_weight, length_normalization),
                          TextForm(final=final, prompt=prompt, bos=scorer.options["bos"],
                                   history=history, session=session))
    else:
        _nothing_twice(scorer, {
            "acoustic_weight": (acoustic_weight, 1.0), "ngram_weight": (ngram_weight, 0.0),
            "length_normalization": (length_normalization, 0.0), "final": (final, ""),
            "prompt": (prompt, ""), "history": (history, 0), "session": (session, "")})
        chosen = Settings.read(settings)
    if hypotheses_a_call < 1:
        raise ValueError(f"--hypotheses-a-call {hypotheses_a_call}; at least 1 expected")
    document = read(nbest, **reading)
    content = jobs.Content.of(document)
    if settings is None:
        _warn_of_bare_texts(document, scorer, chosen)
    job = jobs.Job(document, output, chosen, scorer.identity(), Shard.of(shard),
                   hypotheses_a_call, keep_journals, top)
    cluster = _cluster(ray, actors, actor_cpus, actor_gpus)
    if cluster is not None:  # whose processes may be anywhere
        scorer = dataclasses.replace(scorer, model=str(scorer.path().resolve()), lora=None,
                                     revision=None)
    with Steps("rescoring", _hypotheses(job, content)) as steps:
        unfinished = jobs.run(job, lambda: scorer.open(bos=chosen.form.bos), content,
                              cluster=cluster, advance=steps.advance, skip=steps.skip)
    missing_shards = [f"{each.number}/{each.count}" for each in unfinished]
    if json_:
        print_json({"output": str(output), "utterances": content.utterances,
                    "hypotheses": content.hypotheses, "written": not unfinished,
                    "missing_shards": missing_shards})
    elif unfinished:
        note(f"shard {shard} is done; {output} is written when {', '.join(missing_shards)} is too")
    else:
        print(output)


def _cluster(address: str | None, actors: int | None, cpus: float,
             gpus: float) -> Cluster | None:
    if address is None:
        if actors is not None:
            raise ValueError("--actors is for --ray ADDRESS")
        return None
    if importlib.util.find_spec("ray") is None:
        raise ValueError("--ray needs the package ray: pip install 'lmfusion[ray]'")
    from lmfusion.scaling import Cluster
    return Cluster(address, actors, cpus, gpus)


def _hypotheses(job: Job, content: Content) -> int:
    chosen = job.shard.range(content.utterances)
    if job.shard.count == 1:
        return content.hypotheses
    return sum(len(each.hypotheses)
               for each in itertools.islice(job.document, chosen.start, chosen.stop))


def _nothing_twice(scorer: ChosenScorer, given_beside: dict[str, tuple[object, object]]) -> None:
    """Args: given_beside: name -> what it is, and what it is where nobody gives it."""
    from lmfusion import _core
    defaults = {name: default for name, default, _ in _core.option_fields()}
    given = [name for name in ("weight", "word_insertion_bonus", "casing", "bos")
             if scorer.options[name] != defaults[name]]
    given += [name for name, (value, default) in given_beside.items() if value != default]
    if given:
        raise ValueError(f"--settings has the weights and the form of the texts; leave out "
                         f"{', '.join('--' + name.replace('_', '-') for name in given)}")


def _warn_of_bare_texts(document: NBest, scorer: ChosenScorer, settings: Settings) -> None:
    """The form of the texts is worth more than most weights."""
    from lmfusion.tuning.text_form import is_bare
    some = itertools.islice(document, 50)
    if scorer.options["casing"] == "none" and not settings.form.final and is_bare(
            one.text for utterance in some for one in utterance.hypotheses):
        note("these texts have one case and no end marks, which a language model reads badly: "
             "`lmfusion tune` finds weights and a form on lists with references; without any, try "
             '--casing sentence --final "."')
