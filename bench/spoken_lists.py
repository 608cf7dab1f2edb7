"""n-best lists of 210 sentences of our own, for tuning and for error rates that mean something.

flite speaks the sentences of spoken_sentences.txt and of the demo, in turn with two voices and at
two levels of pink noise, each sentence once; PocketSphinx recognises them. A line an utterance: its
id, the reference ("ref"), the voice, the noise, and the list.

    python bench/spoken_lists.py -o out/spoken.jsonl
    python -m lmfusion tune out/spoken.jsonl -o out/spoken
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmfusion.demo.recognition import recognize
from lmfusion.demo.speech import add_pink_noise, noise_seed, speak
from lmfusion.demo.utterances import sentences
from rich.progress import track

VOICES = ("slt", "rms")
SNRS = (28.0, 20.0)  # decibels, speech over noise


def spoken() -> list[str]:
    """All sentences, the demo's last."""
    text = Path(__file__).with_name("spoken_sentences.txt").read_text(encoding="utf-8")
    return text.split("\n")[:-1] + sentences("tuning") + sentences("test")


def lists(size: int) -> Iterator[dict[str, Any]]:
    """Every utterance with its list of `size` texts at most."""
    conditions = itertools.cycle(itertools.product(VOICES, SNRS))
    for number, (sentence, (voice, snr)) in enumerate(zip(spoken(), conditions)):
        audio = add_pink_noise(speak(sentence, voice=voice), snr_db=snr, seed=noise_seed(sentence))
        yield {"utt": f"{voice}-{snr:g}dB-{number}", "ref": sentence, "voice": voice, "snr": snr,
               "nbest": [[one.text, one.score] for one in recognize(audio, size=size).hypotheses]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=60, help="texts of a list, at most")
    given = parser.parse_args()
    given.output.parent.mkdir(parents=True, exist_ok=True)
    with given.output.open("w", encoding="utf-8") as file:
        for row in track(lists(given.size), total=len(spoken()), description="recognising"):
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
