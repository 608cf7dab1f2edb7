"""PocketSphinx with its own English model: audio to an n-best list."""

from __future__ import annotations

import itertools
import math
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pocketsphinx

from lmfusion.demo.speech import Samples

LIST_SIZE = 60
# PocketSphinx repeats a text once for every pronunciation and pause; this many entries are read
# to find LIST_SIZE different texts.
MAX_ENTRIES = 2000
# PocketSphinx holds log-likelihoods as integers that are divided by 2^10 and gives exp() of those.
SCORE_SCALE = 1024.0

_ALTERNATIVE_PRONUNCIATION = re.compile(r"\(\d+\)$")
_FILLER = re.compile(r"^(<.*>|\[.*\]|\+\+.*\+\+)$")


@dataclass(frozen=True)
class Hypothesis:
    """One text of an n-best list."""

    text: str  # words in lower case, single spaces; may be empty
    score: float  # the recogniser's own log-likelihood: acoustics, its 3-gram, its word penalty


@dataclass(frozen=True)
class Recognition:
    """What was recognised in one utterance."""

    best: str  # the recogniser's own answer
    hypotheses: tuple[Hypothesis, ...]  # different texts, in the recogniser's order
    lattice: str = ""  # what ps_lattice_write writes; "": nothing was recognised


def clean_text(raw: str) -> str:
    """"<s> the(2) cat <sil> sat" -> "the cat sat"."""
    return " ".join(_ALTERNATIVE_PRONUNCIATION.sub("", word) for word in raw.split()
                    if not _FILLER.match(word))


def distinct_hypotheses(entries: Iterable[tuple[str, float]], *,
                        size: int = LIST_SIZE) -> tuple[Hypothesis, ...]:
    """The first `size` different texts of (raw text, log-likelihood) pairs.

    A text that comes several times has the best of its scores.
    """
    scores: dict[str, float] = {}
    for raw, score in entries:
        text = clean_text(raw)
        if text not in scores and len(scores) == size:
            break
        scores[text] = max(score, scores.get(text, -math.inf))
    return tuple(Hypothesis(text, score) for text, score in scores.items())


def decode(samples: Samples) -> pocketsphinx.Decoder:
    """A decoder that has recognised one utterance, knowing nothing of any other.

    Args:
        samples: [samples] int16, 16 kHz.
    """
    # Cepstral means over the utterance: the default carries them from one to the next.
    decoder = pocketsphinx.Decoder(loglevel="FATAL", cmn="batch")
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    return decoder


def hypotheses_of(decoder: pocketsphinx.Decoder, *, size: int = LIST_SIZE
                  ) -> tuple[Hypothesis, ...]:
    """The different texts of what a decoder recognised, `size` at most, in its order."""
    entries = ((entry.hypstr, SCORE_SCALE * math.log(entry.score))
               for entry in itertools.islice(decoder.nbest(), MAX_ENTRIES) if entry.score > 0)
    return distinct_hypotheses(entries, size=size)


def recognize(samples: Samples, *, size: int = LIST_SIZE) -> Recognition:
    """Recognises one utterance.

    Args:
        samples: [samples] int16, 16 kHz.
        size: different texts to list, at most.
    """
    decoder = decode(samples)
    best = decoder.hyp()
    if best is None:
        return Recognition("", ())
    return Recognition(clean_text(best.hypstr), hypotheses_of(decoder, size=size),
                       lattice_text_of(decoder))


def lattice_text_of(decoder: pocketsphinx.Decoder) -> str:
    """PocketSphinx's own lattice of what a decoder recognised, as its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "utterance.lat")
        decoder.get_lattice().write(str(path))
        return path.read_text(encoding="utf-8")
