"""`lmfusion prime`: a cache snapshot of what every utterance asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmfusion.cli.lines import lines_of_file
from lmfusion.cli.output import AsJson, print_json, progress_bar
from lmfusion.cli.scorer_options import ChosenScorer, scores


@scores()
def prime(scorer: ChosenScorer,
          output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE")],
          contexts: Annotated[Path | None, typer.Option(
              "--contexts", metavar="FILE", help="one text a line")] = None,
          words: Annotated[Path | None, typer.Option(
              "--words", metavar="FILE", help="one word a line")] = None,
          json_: AsJson = False) -> None:
    """Compute texts and words once and save them as a cache snapshot.

    Writes a file for load_cache(): the contexts, and the words as candidates at the beginning of a
    text. The scorer that loads it must have the same casing.
    """
    if contexts is None and words is None:
        raise ValueError("give --contexts or --words, else there is nothing to compute")
    opened = scorer.open()
    with progress_bar() as bar:
        task = bar.add_task("computing", total=None, rate="")
        opened.prime([] if contexts is None else list(lines_of_file(contexts)),
                     vocabulary=[] if words is None else list(filter(None, lines_of_file(words))),
                     progress=lambda done, total: bar.update(task, completed=done, total=total))
    tokens = opened.save_cache(output)
    size = output.stat().st_size
    if json_:
        print_json({"path": str(output), "tokens": tokens, "bytes": size})
    else:
        print(f"{output}: {tokens} tokens, {size} bytes")
