"""Speech without a speaker: flite says a sentence, and noise is added to it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import wave
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000  # Hz, what the recogniser's model was trained on

Samples = npt.NDArray[np.int16]


class SpeechError(OSError):
    """The synthesiser is missing, or did not do what was asked."""


def speak(sentence: str, *, voice: str = "slt") -> Samples:
    """Says a sentence with Debian's flite.

    Returns:
        [samples] int16, 16 kHz, one channel. The same sentence gives the same samples.

    Raises:
        SpeechError: flite is not installed or fails.
    """
    program = shutil.which("flite")
    if program is None:
        raise SpeechError("flite, which speaks the sentences, is not installed: apt install flite")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        done = subprocess.run([program, "-voice", voice, "-t", sentence, "-o", str(path)],
                              capture_output=True, text=True, check=False)
        if done.returncode or not path.exists():
            raise SpeechError(f"flite could not speak {sentence!r}: {done.stderr.strip()}")
        with wave.open(str(path)) as file:
            shape = file.getframerate(), file.getnchannels(), file.getsampwidth()
            if shape != (SAMPLE_RATE, 1, 2):
                raise SpeechError(f"flite's voice {voice} gives (rate, channels, bytes) {shape}; "
                                  f"expected {(SAMPLE_RATE, 1, 2)}")
            return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.int16)


def add_pink_noise(samples: Samples, *, snr_db: float, seed: int) -> Samples:
    """Adds noise whose power falls by 3 dB an octave.

    Args:
        snr_db: power of the speech over power of the noise, decibels, both over the whole file.
        seed: the same seed gives the same noise.
    """
    white = np.fft.rfft(np.random.default_rng(seed).standard_normal(len(samples)))
    frequency = np.maximum(np.arange(len(white)), 1)
    noise = np.fft.irfft(white / np.sqrt(frequency), len(samples))
    power = np.mean(samples.astype(np.float64) ** 2) / 10 ** (snr_db / 10)
    noisy = samples + noise * np.sqrt(power / np.mean(noise**2))
    return np.clip(np.round(noisy), -32768, 32767).astype(np.int16)


def noise_seed(sentence: str) -> int:
    """One seed a sentence, the same on every machine and in every order."""
    return zlib.crc32(sentence.encode())
