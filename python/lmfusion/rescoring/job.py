"""The job: the utterances of a shard are scored call by call into its journal; when the journals of
all shards are complete, the output is written from them, in the format of the input.

Every call begins with an empty cache and has the same utterances whatever was done before, and the
output is written from the journals alone: after a kill it is the same to the byte.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmfusion.default_model import locked
from lmfusion.nbest import NBest, Ranked, Utterance
from lmfusion.nbest.ranking import batches, write_ranked
from lmfusion.rescoring.journal import Journal, Shard, done_in, log_probs_in
from lmfusion.tuning.history import with_histories
from lmfusion.tuning.settings import Settings
from lmfusion.tuning.text_form import TextForm

if TYPE_CHECKING:
    from lmfusion import LMFusionScorer
    from lmfusion.scaling import Cluster

FORMAT = 1
Rows = list[list[float | None]]
Answering = Callable[[Iterable[Sequence[Utterance]]], Iterator[Rows]]


@dataclass(frozen=True)
class Content:
    """Of an n-best document: how much it is, and a digest of its names and texts."""

    utterances: int
    hypotheses: int
    digest: str

    @classmethod
    def of(cls, document: Iterable[Utterance]) -> Content:
        """Reads it through once."""
        digest = hashlib.sha256()
        utterances = hypotheses = 0
        for utterance in document:
            texts = [one.text for one in utterance.hypotheses]
            digest.update(json.dumps([utterance.name, texts]).encode())
            utterances += 1
            hypotheses += len(texts)
        return cls(utterances, hypotheses, digest.hexdigest())


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        document: read from a file or folder.
        output: of the whole document, whatever the shard.
        settings: weights and text form.
        model: all that log p depends on beside texts and form, for the journal.
        shard: which utterances.
        hypotheses_a_call: of the model, at least; utterances are never split.
        keep_journals: leaves them when the output is written.
        top: only the best so many of every list are to be known and put in order, which takes less
            of the model (`LMFusionScorer.best`); the others follow as they were. None: all.

    Raises:
        ValueError: `top` is below 1, or with length normalisation, which `best` does not have.
    """

    document: NBest
    output: Path
    settings: Settings
    model: str
    shard: Shard = Shard()  # noqa: RUF009 (it is frozen)
    hypotheses_a_call: int = 2048
    keep_journals: bool = False
    top: int | None = None

    def __post_init__(self) -> None:
        if self.top is not None and self.top < 1:
            raise ValueError(f"top = {self.top}; at least 1 expected")
        if self.top is not None and self.settings.weights.length_normalization:
            raise ValueError("only the best of a list cannot be found alone with length "
                             "normalisation; leave out --top, or tune without it")

    def identity(self, content: Content) -> dict[str, Any]:
        """The first line of the journal."""
        return {"format": FORMAT, "input": content.digest, "utterances": content.utterances,
                "model": self.model, "form": self.settings.form.to_dict(),
                "shards": self.shard.count, "hypotheses_a_call": self.hypotheses_a_call,
                "top": self.top,  # what is left uncomputed depends on the weights
                "weights": None if self.top is None else asdict(self.settings.weights)}


def run(job: Job, scorer: Callable[[], LMFusionScorer], content: Content, *,
        cluster: Cluster | None = None,
        advance: Callable[[int], None] = lambda count: None,
        skip: Callable[[int], None] | None = None) -> list[Shard]:
    """Scores what of the shard is not scored yet; writes the output if no shard is missing.

    Args:
        scorer: opens one, with casing "none" and the form's `bos`; not called if nothing is left.
        content: of the document.
        cluster: of Ray, whose actors open a scorer each; None: one scorer here.
        advance: called with the number of hypotheses of every call. skip: the same of calls that
            an earlier run made; default: `advance`.

    Returns:
        The shards that are not complete; where there is none the output is written.

    Raises:
        ValueError: the output is the input, a journal is of another job, or another process is at
            work on this shard.
    """
    if job.output.resolve() == Path(job.document.source).resolve():
        raise ValueError(f"{job.output} is what is read; give another path to write to")
    job.output.parent.mkdir(parents=True, exist_ok=True)
    identity = job.identity(content)
    journal = Journal(job.shard.journal(job.output), identity)
    try:
        _score(job, _answering(job, scorer, cluster), content, journal, advance,
               skip or advance)
    finally:
        journal.close()
    missing = [shard for shard in _shards(job) if done_in(shard.journal(job.output), identity)
               < len(shard.range(content.utterances))]
    if not missing:
        _write(job)
    return missing


def scored(scorer: LMFusionScorer, form: TextForm, texts: Sequence[str],
           history: Sequence[str] = ()) -> list[float]:
    """log p of texts in a form, those with the same beginning one after the other."""
    order = sorted(range(len(texts)), key=texts.__getitem__)
    found = form.log_probs(scorer, [texts[index] for index in order], history) if texts else []
    result = [0.0] * len(texts)
    for index, log_prob in zip(order, found, strict=True):
        result[index] = log_prob
    return result


def best_scored(scorer: LMFusionScorer, settings: Settings, utterances: Sequence[Utterance],
                top: int) -> Rows:
    """log p of every utterance's `top` best hypotheses and of what else became known; None of what
    is worse for certain. All utterances have the same history."""
    weights, form = settings.weights, settings.form
    lists = [[form.text(one.text) for one in utterance.hypotheses] for utterance in utterances]
    # The bonus is in the base scores already: it is of the words as they were recognised.
    base = [[weights.row(one, place, 0.0).total for place, one in enumerate(utterance.hypotheses)]
            for utterance in utterances]
    found = scorer.best(lists, base, weight=weights.weight, word_insertion_bonus=0.0, n=top,
                        prompt=form.prompt, context=utterances[0].history)
    result: Rows = []
    for texts, each in zip(lists, found):
        row: list[float | None] = [None] * len(texts)
        for one in (*each.best, *each.beaten):
            if one.exact:
                row[one.index] = one.log_prob
        result.append(row)
    return result


def _shards(job: Job) -> list[Shard]:
    return [Shard(number + 1, job.shard.count) for number in range(job.shard.count)]


def _answering(job: Job, scorer: Callable[[], LMFusionScorer],
               cluster: Cluster | None) -> Answering:
    """The rows of every call, in order, each begun with an empty cache."""
    settings, top = job.settings, job.top
    if cluster is not None:
        from lmfusion.scaling import scored_on
        return lambda calls: scored_on(
            cluster, ([_bare(utterance) for utterance in some] for some in calls), scorer,
            lambda opened, some: rows_of(opened, settings, some, top))

    def here(calls: Iterable[Sequence[Utterance]]) -> Iterator[Rows]:
        opened: LMFusionScorer | None = None
        for some in calls:
            opened = opened or scorer()
            opened.clear_cache()
            yield rows_of(opened, settings, some, top)
    return here


def _bare(utterance: Utterance) -> Utterance:
    """Without what the hypotheses were read from, which scoring does not need."""
    return replace(utterance, hypotheses=[replace(one, given=None)
                                          for one in utterance.hypotheses])


def rows_of(scorer: LMFusionScorer, settings: Settings, utterances: Sequence[Utterance],
            top: int | None) -> Rows:
    """log p of every hypothesis of every utterance; with `top`, as `best_scored`."""
    rows: Rows = []
    for history, group in itertools.groupby(utterances, lambda utterance: utterance.history):
        some = list(group)
        if top is not None:
            rows += best_scored(scorer, settings, some, top)
            continue
        texts = [one.text for utterance in some for one in utterance.hypotheses]
        log_probs = iter(scored(scorer, settings.form, texts, history))
        rows += [list(itertools.islice(log_probs, len(utterance.hypotheses)))
                 for utterance in some]
    return rows


def _score(job: Job, answering: Answering, content: Content, journal: Journal,
           advance: Callable[[int], None], skip: Callable[[int], None]) -> None:
    chosen = job.shard.range(content.utterances)
    mine = itertools.islice(with_histories(job.document, job.settings.form), chosen.start,
                            chosen.stop)

    def calls() -> Iterator[list[Utterance]]:
        passed = 0
        for some in batches(mine, job.hypotheses_a_call):
            passed += len(some)
            if passed <= journal.done:
                skip(sum(len(utterance.hypotheses) for utterance in some))
            else:
                yield some

    for rows in answering(calls()):
        journal.add(rows)
        advance(sum(map(len, rows)))


def _write(job: Job) -> None:
    """From the journals; nothing where another process has done so."""
    journals = [shard.journal(job.output) for shard in _shards(job)]
    lock = job.output.with_name(f".{job.output.name}.lock")
    with locked(lock):
        if all(path.is_file() for path in journals):
            _write_from(job, journals)
        if not job.keep_journals:
            for path in journals:
                path.unlink(missing_ok=True)
    lock.unlink(missing_ok=True)


def _write_from(job: Job, journals: Sequence[Path]) -> None:
    log_probs = itertools.chain.from_iterable(map(log_probs_in, journals))
    utterances, named = itertools.tee(job.document)
    ranked = (job.settings.weights.ranked(utterance, row)
              for utterance, row in zip(utterances, log_probs))
    write_ranked(job.document, zip(named, _checked(ranked)), job.output)


def _checked(ranked: Iterator[list[Ranked]]) -> Iterator[list[Ranked]]:
    """As it is; a journal that ends too early is an error, not a shorter file."""
    yield from ranked
    raise RuntimeError("the journals of a job ended before its utterances")
