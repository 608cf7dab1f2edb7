"""The spoken sentences and what the recogniser makes of them, kept from run to run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lmfusion.demo.recognition import LIST_SIZE, Hypothesis, Recognition, recognize
from lmfusion.demo.speech import add_pink_noise, noise_seed, speak

SNR_DB = 28.0  # moderate: about one word in seven of the tuning sentences is wrong
VOICE = "slt"
FORMAT = 2  # of the kept files; raise it when recognition.py or speech.py changes what they give


@dataclass(frozen=True)
class Utterance:
    """What was said and what was recognised."""

    reference: str
    recognition: Recognition


def sentences(name: str) -> list[str]:
    """The sentences of a set: "test" (30) or "tuning" (30, none of them in "test")."""
    file = importlib.resources.files("lmfusion.demo") / "sentences" / f"{name}.txt"
    return file.read_text(encoding="utf-8").split("\n")[:-1]


def utterances(references: list[str], folder: Path) -> Iterator[Utterance]:
    """Speaks and recognises sentences, one by one; what was recognised before is read again.

    Args:
        folder: where results are kept, one file an utterance, named by a hash of its inputs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for reference in references:
        path = folder / f"{_key(reference)}.json"
        recognition = _read(path)
        if recognition is None:
            audio = add_pink_noise(speak(reference, voice=VOICE), snr_db=SNR_DB,
                                   seed=noise_seed(reference))
            recognition = recognize(audio)
            _write(path, recognition)
        yield Utterance(reference, recognition)


def _key(reference: str) -> str:
    inputs = [FORMAT, reference, VOICE, SNR_DB, LIST_SIZE,
              importlib.metadata.version("pocketsphinx")]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]


def _read(path: Path) -> Recognition | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Recognition(content["best"],
                       tuple(Hypothesis(**entry) for entry in content["hypotheses"]),
                       content["lattice"])


def _write(path: Path, recognition: Recognition) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(asdict(recognition)), encoding="utf-8")
    partial.replace(path)
