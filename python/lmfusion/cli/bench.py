"""`lmfusion bench`: recorded requests of a decoder, cached and uncached."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmfusion.cli.output import AsJson, print_json, print_table, progress_bar
from lmfusion.cli.scorer_options import ChosenScorer, scores

if TYPE_CHECKING:
    from lmfusion import LMFusionScorer

MODES = ("tree", "grouped", "uncached")


@dataclass(frozen=True)
class Request:
    """One call of a decoder, a line of a request file (bench/README.md has the format)."""

    utterance: int
    fields: dict[str, Any]

    def ask(self, scorer: LMFusionScorer) -> list[float]:
        """All its log-probabilities."""
        fields = self.fields
        if "contexts" in fields:
            rows: Any = scorer.log_probs(fields["contexts"], fields["candidate_words"])
        elif "endings" in fields:
            rows = scorer.score_endings(fields["texts"], fields["endings"])
        else:
            return scorer.score_texts(fields["texts"], eos=bool(fields.get("eos")))
        return [log_prob for row in rows for log_prob in row]


@dataclass(frozen=True)
class Replay:
    """All requests in one mode."""

    mode: str
    seconds: float
    stats: dict[str, Any]
    log_probs: list[float]


@scores(without=("weight", "word_insertion_bonus", "mode"))
def bench(scorer: ChosenScorer,
          requests: Annotated[Path, typer.Argument(metavar="REQUESTS.jsonl")],
          mode: Annotated[list[str], typer.Option(
              "--mode", help="tree, grouped, uncached; may be repeated")] = ["tree", "uncached"],  # noqa: B006 (Typer copies it)
          calls: Annotated[int | None, typer.Option(help="at most so many")] = None,
          json_: AsJson = False) -> None:
    """Replay the requests that a decoder made: cached against uncached.

    The cache starts empty at every utterance. The last column is the largest difference to the
    scores of the first mode.
    """
    if unknown := [name for name in mode if name not in MODES]:
        raise ValueError(f"--mode {unknown[0]}; one of {', '.join(MODES)} expected")
    asked = list(_read(requests, calls))
    replays = []
    with progress_bar() as progress:
        for name in mode:
            opened = scorer.open(mode=name)
            task = progress.add_task(name, total=len(asked), rate="")
            replays.append(_replayed(opened, name, asked,
                                     functools.partial(progress.advance, task)))
    first = replays[0]
    rows = [{"mode": each.mode, "seconds": each.seconds,
             "speed_up": replays[-1].seconds / each.seconds,
             "tokens_requested": each.stats["tokens_requested"],
             "tokens_computed": each.stats["tokens_computed"], "forwards": each.stats["forwards"],
             "largest_difference": max((abs(one - other) for one, other in
                                        zip(each.log_probs, first.log_probs)), default=0.0)}
            for each in replays]
    if json_:
        print_json({"requests": len(asked), "results": rows})
        return
    print_table(list(rows[0]), [[f"{row['seconds']:.3f}" if name == "seconds"
                                 else f"{value:.1e}" if name == "largest_difference"
                                 else f"{value:.2f}" if name == "speed_up" else value
                                 for name, value in row.items()] for row in rows])


def _replayed(scorer: LMFusionScorer, mode: str, requests: list[Request], advance: Any) -> Replay:
    log_probs: list[float] = []
    seconds = 0.0
    utterance = None
    for request in requests:
        if request.utterance != utterance:
            scorer.clear_cache()
            utterance = request.utterance
        begin = time.perf_counter()
        log_probs += request.ask(scorer)
        seconds += time.perf_counter() - begin
        advance()
    return Replay(mode, seconds, scorer.stats().to_dict(), log_probs)


def _read(path: Path, most: int | None) -> Iterator[Request]:
    count = 0
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if most is not None and count >= most:
                return
            try:
                fields = json.loads(line)
                known = isinstance(fields, dict) and (
                    ("contexts" in fields and "candidate_words" in fields) or "texts" in fields)
            except json.JSONDecodeError:
                known = False
            if not known:
                raise ValueError(f"{path}, line {number} is no request: a JSON object with "
                                 '"contexts" and "candidate_words", or "texts", expected')
            count += 1
            yield Request(int(fields.get("utt", 0)), fields)
    if not count:
        raise ValueError(f"{path} has no requests")
