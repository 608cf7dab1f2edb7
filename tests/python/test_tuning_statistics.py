"""Intervals and tests of word error rates, on examples with known answers."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from lmfusion.tuning.alignment import Alignment, align, normalized
from lmfusion.tuning.statistics import bootstrap, compare, mapsswe, segment_differences


def word_errors(reference: str, text: str) -> int:
    """Levenshtein's distance of words, from its definition."""
    a, b = reference.split(), text.split()
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        row = _next(row, i, word, b)
    return row[-1]


def _next(before: list[int], i: int, word: str, b: list[str]) -> list[int]:
    row = [i]
    for j, other in enumerate(b, 1):
        row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (word != other)))
    return row


def test_alignments_have_the_fewest_errors() -> None:
    generator = random.Random(3)
    pairs = [tuple(" ".join(generator.choices("abc", k=generator.randrange(6)))
                   for _ in range(2)) for _ in range(200)]
    references, texts = zip(*pairs)
    for reference, text, found in zip(references, texts, align(references, texts)):
        assert found.errors == word_errors(reference, text) == sum(found.at)
        assert found.words == len(reference.split()) == len(found.at) // 2
    [found, other] = align(["a b c d", "a b c"], ["x a b c y", "a c"])
    assert (found.substitutions, found.deletions, found.insertions) == (1, 0, 1)
    assert found.at == (1, 0, 0, 0, 0, 0, 0, 1, 0)
    assert (other.deletions, other.at) == (1, (0, 0, 0, 1, 0, 0, 0))


def test_case_and_marks_do_not_count() -> None:
    text = "\u201cWell,\u201d  he said: it's 3.5 (o'clock)!"
    assert normalized(text) == "well he said it's 3.5 o'clock"
    assert normalized("don't well-known U.S.A. ") == "don't well-known u.s.a"


def one(at: str) -> Alignment:
    """Errors at the words of a reference; gaps have none."""
    places = [0] + [value for letter in at for value in (int(letter), 0)]
    return Alignment(len(at), sum(places), 0, 0, tuple(places))


def test_segments_end_at_two_words_that_both_have_right() -> None:
    # Words 1 and 3 are one segment (one right word between), word 6 another (two between).
    assert segment_differences(one("1010010"), one("0000010")) == [2, 0]
    assert segment_differences(one("000"), one("000")) == []
    assert segment_differences(one("10010000"), one("00000001")) == [1, 1, -1]


def test_mapsswe_by_hand() -> None:
    before = [one("1001001"), one("11")]
    after = [one("0000001"), one("00")]
    # Differences 1, 1, 0, 2: mean 1, deviation sqrt(2/3), W = 1 / (sqrt(2/3) / 2) = 2.4495.
    segments, w, p = mapsswe(before, after)
    assert (segments, w) == (4, pytest.approx(math.sqrt(6)))
    assert p == pytest.approx(0.014306, abs=1e-6)  # 2 * (1 - Phi(2.4495))
    assert mapsswe(after, before)[1] == pytest.approx(-w)
    assert mapsswe(before, before) == (4, 0.0, 1.0)


def test_intervals_cover_the_true_rate() -> None:
    """Of 200 samples of a known rate about 95 % of the intervals hold it."""
    generator = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        words = generator.integers(3, 15, 80)
        # Utterances differ in how hard they are: mean rate 0.25.
        errors = generator.binomial(words, generator.uniform(0.0, 0.5, 80))
        rates = bootstrap(words, errors[None], samples=500, seed=seed)[0]
        low, high = np.percentile(rates, [2.5, 97.5])
        covered += low <= 0.25 <= high
    assert 0.88 <= covered / 200 <= 0.99


def noisy(generator: np.random.Generator, rate: float) -> list[Alignment]:
    return [one("".join(str(int(each)) for each in generator.random(12) < rate))
            for _ in range(100)]


def test_chance_is_called_chance_and_a_gain_a_gain() -> None:
    generator = np.random.default_rng(7)
    claims = sum(compare(noisy(generator, 0.2), noisy(generator, 0.2), samples=300,
                         seed=seed).is_better for seed in range(100))
    assert claims <= 7  # one side of 5 %, so about 2.5 are expected
    gain = compare(noisy(generator, 0.3), noisy(generator, 0.15), samples=1000)
    assert gain.is_better and gain.probability_of_improvement > 0.99
    assert "not by chance" in gain.verdict
    loss = compare(noisy(generator, 0.15), noisy(generator, 0.3), samples=1000)
    assert not loss.is_better and "WORSE" in loss.verdict
    same = noisy(generator, 0.2)
    assert compare(same, same).probability_of_improvement == 0.5
    nothing = compare(noisy(generator, 0.2), noisy(generator, 0.2), samples=1000)
    assert "chance" in nothing.verdict


@pytest.mark.parametrize(("count", "sure"), [(3, False), (5, False), (6, True)])
def test_a_handful_of_utterances_is_never_sure(count: int, sure: bool) -> None:
    """Every utterance better by an error: the chance of that is 2 / 2 ** count among equals."""
    found = compare([one("01000")] * count, [one("00000")] * count)
    assert found.differing == count and found.probability_of_improvement == 1
    assert found.is_better == sure == (2 / 2 ** count < 0.05)
    assert ("chance" in found.verdict) and (f"only {count} utterances" in found.verdict) != sure
    worse = compare([one("00000")] * count, [one("01000")] * count)
    assert not worse.is_better and ("WORSE" in worse.verdict) == sure
