"""Kaldi's steps/pytorchnn/compute_sentence_scores.py, which lmrescore_nbest_pytorchnn.sh calls.

Read: lines "utterance-N words". Written: lines "utterance-N cost cost ... ", in nats, a cost a word
and one for the end of the sentence; the script adds them up. Hypotheses of an utterance are
numbered from 1 in the order in which they are read, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lmfusion.replaced_file import replaced

if TYPE_CHECKING:
    from lmfusion import LMFusionScorer

TEXTS_A_CALL = 256


def read_sentences(path: Path) -> dict[str, list[str]]:
    """The texts of every utterance; a line without words is an empty one."""
    found: dict[str, list[str]] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            name, _, text = line.strip().partition(" ")
            if name:
                found.setdefault(name.rsplit("-", 1)[0], []).append(text.strip())
    return found


def write_sentence_scores(scorer: LMFusionScorer, infile: Path, outfile: Path, *, end: bool = True,
                          advance: Callable[[int], None] = lambda count: None) -> int:
    """Writes the costs of all texts; gives how many there are.

    Args:
        end: also -log p of the end-of-text token after the whole text.
        advance: called with the number of texts of every call.

    Raises:
        ValueError: there is no text; or `end`, and the model has no end-of-text token.
    """
    sentences = [(f"{name}-{number}", text) for name, texts in read_sentences(infile).items()
                 for number, text in enumerate(texts, 1)]
    if not sentences:
        raise ValueError(f"{infile} has no hypotheses; lines of an id and words expected")
    with replaced(outfile) as temporary, temporary.open("w", encoding="utf-8") as file:
        for begin in range(0, len(sentences), TEXTS_A_CALL):
            some = sentences[begin:begin + TEXTS_A_CALL]
            for (name, _), costs in zip(some, _costs(scorer, [text for _, text in some], end)):
                file.write(f"{name} " + "".join(f"{cost:.4f} " for cost in costs) + "\n")
            advance(len(some))
    return len(sentences)


def _costs(scorer: LMFusionScorer, texts: list[str], end: bool) -> Iterator[list[float]]:
    words = scorer.word_log_probs(texts)
    endings = scorer.score_endings(texts, [""]) if end else [[] for _ in texts]
    for row, ending in zip(words, endings):
        yield [-log_prob for _, log_prob in row] + [-log_prob for log_prob in ending]
