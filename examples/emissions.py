"""What a character recogniser might have heard: noisy, and the same every time.

The examples, the tests and bench/adapters.py decode these in place of audio.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy

DATA = Path(__file__).parent / "data"
BLANK, SPACE = "-", "|"
UNITS = [BLANK, SPACE, *"abcdefghijklmnopqrstuvwxyz"]  # the columns of emissions
FRAMES = 2  # frames a character, and one blank after it


def held_out(count: int | None = None) -> list[str]:
    """What was said; no setting of the examples was chosen on it."""
    return (DATA / "held_out.txt").read_text().splitlines()[:count]


def tuning(count: int | None = None) -> list[str]:
    """Other sentences, on which bench/choose_weights.py chose the settings."""
    return (DATA / "tuning.txt").read_text().splitlines()[:count]


def lexicon() -> list[str]:
    """The words there are, many of them alike."""
    return (DATA / "lexicon.txt").read_text().split()


def emissions(text: str, *, seed: int | None = None, noise: float = 2.0) -> numpy.ndarray:
    """[frames, units] of log p, float32: every character heard among noise.

    Without a seed, the text is one: it always sounds the same.
    """
    generator = numpy.random.default_rng(zlib.crc32(text.encode()) if seed is None else seed)
    columns = [UNITS.index(SPACE if letter == " " else letter) for letter in text]
    frames: list[numpy.ndarray] = []
    for column in columns:
        # What is misheard is misheard for as long as the character lasts.
        heard = generator.normal(0.0, noise, len(UNITS))
        heard[column] += 5.0
        heard[UNITS.index(BLANK)] = heard.min()
        if column != UNITS.index(SPACE):
            heard[UNITS.index(SPACE)] = heard.min()
        frames += [heard + generator.normal(0.0, 0.2, len(UNITS)) for _ in range(FRAMES)]
        pause = numpy.zeros(len(UNITS))
        pause[UNITS.index(BLANK)] = 8.0
        frames.append(pause)
    logits = numpy.stack(frames)
    return (logits - numpy.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(numpy.float32)


def word_error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Edits (words substituted, left out, put in) by reference words."""
    edits = sum(_edits(reference.split(), hypothesis.split())
                for reference, hypothesis in zip(references, hypotheses, strict=True))
    return edits / sum(len(reference.split()) for reference in references)


def _edits(reference: list[str], hypothesis: list[str]) -> int:
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(hypothesis, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]
