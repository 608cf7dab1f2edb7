"""Makes a request file of the shape a beam-search decoder produces, from the sentences beside this.

    python bench/make_requests.py -o requests.jsonl --utterances 4 --beams 50

No model and no sound is involved: at every word, each hypothesis is extended by the right word,
words that sound like it and others drawn at random, and the likeliest-looking ones are kept, the
right one always among them. The same arguments give the same file.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sentences import ALTERNATIVES, SENTENCES, VOCABULARY

ENDINGS = [".", "?", "!", ""]  # the empty ending is the end-of-text token


@dataclass(frozen=True)
class Shape:
    """What the requests look like."""

    utterances: int = 4
    beams: int = 20  # hypotheses kept after every word: contexts of a call, or texts / candidates
    candidates: int = 3  # words proposed after every hypothesis
    context_words: int = 0  # words before every utterance, the same for all its hypotheses
    last_calls: int = 0  # only the last calls of every utterance; 0: all
    kind: str = "fusion"  # "fusion" (contexts and words) or "texts" (whole texts, then endings)
    seed: int = 0


def make_requests(shape: Shape) -> Iterator[dict[str, object]]:
    """The requests, in order; bench/README.md has their format."""
    draw = random.Random(shape.seed)
    for utterance in range(shape.utterances):
        words = SENTENCES[utterance % len(SENTENCES)].split()
        calls = list(_calls(shape, words, _before(shape, utterance, draw), draw))
        for call in calls[-shape.last_calls:]:
            yield {"utt": utterance, **call}


def _calls(shape: Shape, words: list[str], before: str,
           draw: random.Random) -> Iterator[dict[str, object]]:
    # Hypotheses with a penalty each; index 0 is the right one.
    beam: list[tuple[float, str]] = [(0.0, before)]
    for word in words:
        proposals = [_proposals(word, shape.candidates, draw) for _ in beam]
        extended = [(penalty + (0.0 if word == proposal else draw.expovariate(1.0)),
                     f"{text} {proposal}".lstrip())
                    for (penalty, text), row in zip(beam, proposals) for proposal in row]
        if shape.kind == "fusion":
            yield {"contexts": [text for _, text in beam], "candidate_words": proposals}
        else:
            yield {"kind": "rescore", "texts": [text for _, text in extended]}
        beam = extended[:1] + sorted(extended[1:])[:shape.beams - 1]
    if shape.kind == "texts":
        yield {"kind": "eos", "texts": [text for _, text in beam], "endings": ENDINGS}


def _proposals(word: str, count: int, draw: random.Random) -> list[str]:
    """The right word first, then words like it, then any words; no word twice."""
    row = [word, *ALTERNATIVES.get(word, ())][:count]
    while len(row) < min(count, len(VOCABULARY)):
        other = draw.choice(VOCABULARY)
        if other not in row:
            row.append(other)
    return row


def _before(shape: Shape, utterance: int, draw: random.Random) -> str:
    words: list[str] = []
    while len(words) < shape.context_words:
        words += draw.choice(SENTENCES).split()
    return " ".join(words[:shape.context_words])


def write_requests(shape: Shape, path: Path) -> Path:
    """Writes the requests as JSON lines and returns `path`."""
    with path.open("w", encoding="utf-8") as file:
        for request in make_requests(shape):
            file.write(json.dumps(request) + "\n")
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--kind", choices=("fusion", "texts"), default=Shape.kind)
    for name, text in (("utterances", "sentences"),
                       ("beams", "hypotheses kept after every word"),
                       ("candidates", "words proposed after every hypothesis"),
                       ("context-words", "words that come before every sentence"),
                       ("last-calls", "keep only the last calls of every sentence; 0: all"),
                       ("seed", "of the random choices")):
        default = getattr(Shape, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=int, default=default,
                            help=f"{text} (default {default})")
    given = vars(parser.parse_args(arguments))
    output = given.pop("output")
    if given["beams"] < 1 or given["candidates"] < 1 or given["utterances"] < 1:
        parser.error("--utterances, --beams and --candidates must be at least 1")
    write_requests(Shape(**given), output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
