"""The raw parts of every hypothesis's total, computed once and saved.

Everything a search over weights needs: the recogniser's score, the n-gram's, log p in every text
form, words, and errors against the reference. Tuning again, with other grids, folds or forms,
computes only forms that are not there yet.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmfusion.nbest import Utterance
from lmfusion.nbest.hypothesis import Hypothesis
from lmfusion.replaced_file import replaced
from lmfusion.tuning.alignment import Alignment, align, normalized
from lmfusion.tuning.history import with_histories
from lmfusion.tuning.text_form import TextForm

if TYPE_CHECKING:
    from lmfusion import LMFusionScorer

FORMAT = 1
HYPOTHESES_A_CALL = 1024


@dataclass
class Parts:
    """n-best lists as arrays, [utterances, hypotheses of the longest list]; places that a list
    does not have are False in `there` and 0 elsewhere.

    Attributes:
        names, references: [utterances].
        texts: [utterances][hypotheses of each], as they were given.
        score, ngram: nats, the recogniser's and another language model's.
        words: of each text. characters: the same.
        errors: against the reference.
        reference_words: [utterances].
        log_probs: of every text form, nats.
        model: what computed them.
    """

    names: list[str]
    references: list[str]
    texts: list[list[str]]
    there: np.ndarray
    score: np.ndarray
    ngram: np.ndarray
    words: np.ndarray
    characters: np.ndarray
    errors: np.ndarray
    reference_words: np.ndarray
    log_probs: dict[TextForm, np.ndarray]
    model: str

    @classmethod
    def of(cls, utterances: Iterable[Utterance], references: Sequence[str], model: str) -> Parts:
        """Without log_probs. Utterances without hypotheses are kept: their words are missing."""
        lists = list(utterances)
        shape = (len(lists), max([len(each.hypotheses) for each in lists] + [1]))
        there = np.zeros(shape, dtype=bool)
        score, ngram = np.zeros(shape), np.zeros(shape)
        words, characters, errors = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        pairs = [(reference, one.text) for reference, each in zip(references, lists, strict=True)
                 for one in each.hypotheses]
        alignments = iter(align([normalized(reference) for reference, _ in pairs],
                                [normalized(text) for _, text in pairs]))
        for row, each in enumerate(lists):
            for place, one in enumerate(each.hypotheses):
                there[row, place] = True
                score[row, place], ngram[row, place] = one.score, one.ngram
                words[row, place] = len(one.text.split())
                characters[row, place] = len(one.text)
                errors[row, place] = next(alignments).errors
        reference_words = np.array([len(normalized(text).split()) for text in references],
                                   dtype=np.int64)
        return cls([each.name or str(number) for number, each in enumerate(lists)],
                   list(references), [[one.text for one in each.hypotheses] for each in lists],
                   there, score, ngram, words, characters, errors, reference_words, {}, model)

    def compute(self, form: TextForm, scorer: LMFusionScorer,
                advance: Callable[[int], None] = lambda count: None) -> None:
        """Adds log_probs in a form; nothing where they are there.

        Args:
            scorer: with casing "none" and the form's `bos`.
            advance: called with the number of hypotheses of every call.
        """
        if form in self.log_probs:
            return
        found: list[float] = []
        for history, group in itertools.groupby(self._histories(form), lambda pair: pair[0]):
            texts = [text for _, each in group for text in each]
            for begin in range(0, len(texts), HYPOTHESES_A_CALL):
                some = texts[begin:begin + HYPOTHESES_A_CALL]
                found += form.log_probs(scorer, some, history)
                advance(len(some))
        values = np.zeros(self.there.shape)
        values[self.there] = found
        self.log_probs[form] = values

    def _histories(self, form: TextForm) -> Iterator[tuple[tuple[str, ...], list[str]]]:
        """[utterances] what was said before, and the texts."""
        lists = (Utterance(name, [Hypothesis(text, 0.0, None) for text in each[:1]])
                 for name, each in zip(self.names, self.texts, strict=True))
        for utterance, each in zip(with_histories(lists, form), self.texts):
            yield utterance.history, each

    def alignments(self, chosen: Sequence[int]) -> list[Alignment]:
        """Of one hypothesis an utterance, by its place; an empty list counts as an empty text."""
        return align([normalized(text) for text in self.references],
                     [normalized(text) for text in self.chosen_texts(chosen)])

    def chosen_texts(self, chosen: Sequence[int]) -> list[str]:
        """The texts at those places; "" of an empty list."""
        return [each[place] if each else "" for each, place in zip(self.texts, chosen,
                                                                   strict=True)]

    def fingerprint(self) -> str:
        """Of the lists, the references and the model."""
        content = json.dumps([FORMAT, self.names, self.references, self.texts, self.model])
        digest = hashlib.sha256(content.encode())
        for array in (self.score, self.ngram):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Writes everything as one .npz file."""
        facts = {"format": FORMAT, "fingerprint": self.fingerprint(), "names": self.names,
                 "references": self.references, "texts": self.texts, "model": self.model,
                 "forms": [form.to_dict() for form in self.log_probs]}
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        arrays.update({f"log_probs_{number}": values
                       for number, values in enumerate(self.log_probs.values())})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Parts:
        """Of a file of `save`.

        Raises:
            ValueError: it is none.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                facts = json.loads(file["facts"].tobytes().decode())
                if facts["format"] != FORMAT:
                    raise ValueError(f"format {facts['format']}")
                arrays = {name: file[name] for name in _ARRAYS}
                log_probs = {TextForm(**form): file[f"log_probs_{number}"]
                             for number, form in enumerate(facts["forms"])}
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{path} has no parts of `lmfusion tune`: {error}") from None
        return cls(facts["names"], facts["references"], facts["texts"], **arrays,
                   log_probs=log_probs, model=facts["model"])

    def take_from(self, other: Parts) -> None:
        """Takes over the log_probs of parts of the same lists and model."""
        if other.fingerprint() == self.fingerprint():
            self.log_probs.update(other.log_probs)


_ARRAYS = ("there", "score", "ngram", "words", "characters", "errors", "reference_words")
