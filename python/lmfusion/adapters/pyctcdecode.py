"""pyctcdecode: `BeamSearchDecoderCTC(alphabet, PyctcdecodeLM(scorer))`."""

from __future__ import annotations

import json
import math
import numbers
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pyctcdecode.alphabet import Alphabet
from pyctcdecode.decoder import BeamSearchDecoderCTC
from pyctcdecode.language_model import AbstractLanguageModel
from pygtrie import CharTrie

from lmfusion.scorer import LMFusionScorer
from lmfusion.state import State, StateScorer

UNBOUNDED_ORDER = 1_000_000  # so that no beams are merged for sharing their last words only
PARAMETERS = ("alpha", "beta", "unk_score_offset", "score_boundary")
# What `save_to_dir` writes.
ATTRIBUTES, MODEL, TRUECASER, UNIGRAMS = "attrs.json", "model.lmf", "truecaser", "unigrams.txt"
WORD_LENGTH = 6  # characters; an impossible beginning of a longer word costs more


def load_decoder(filepath: str | os.PathLike[str], **options: Any) -> BeamSearchDecoderCTC:
    """The decoder that `BeamSearchDecoderCTC.save_to_dir` saved with a `PyctcdecodeLM` in it.

    pyctcdecode's own `load_from_dir` knows kenlm models only.

    Args:
        options: of the scorer, in place of those saved.
    """
    files = BeamSearchDecoderCTC.parse_directory_contents(os.fspath(filepath))
    alphabet = Alphabet.loads(Path(str(files["alphabet"])).read_text())
    folder = files["language_model"]
    return BeamSearchDecoderCTC(
        alphabet, None if folder is None else PyctcdecodeLM.load_from_dir(folder, **options))


def _link(source: str | os.PathLike[str], target: Path) -> None:
    """The same file in another place."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


class PyctcdecodeLM(AbstractLanguageModel):
    """A language model that pyctcdecode asks word by word.

    pyctcdecode adds what `score` returns as it is, so a weight and a bonus a word are applied
    here: `alpha` and `beta`, which `decoder.reset_params` sets, or the scorer's own `weight` and
    `word_insertion_bonus` as long as they are None. It asks for one word at a time, so calls are
    not batched; a state is its text, and the adapter keeps none.

    Args:
        scorer: the scorer.
        unigrams: the words there are. Others, and beginnings of none, get `unk_score_offset`,
            more if they are long.
            None: all words are possible.
        unk_score_offset: added to the score of a word that is not in `unigrams`.
        endings: how an utterance ends, scored after its last word ("" is the end-of-text token);
            () scores no end.
        alpha, beta: weight of log p and bonus a word; None: the scorer's, whatever they become.

    Attributes:
        score_boundary: whether the end of an utterance is scored; also set by `reset_params`.
    """

    def __init__(self, scorer: LMFusionScorer, *, unigrams: Collection[str] | None = None,
                 unk_score_offset: float = -10.0,
                 endings: Sequence[str] = (".", "?", "!"), alpha: float | None = None,
                 beta: float | None = None) -> None:
        self.scorer = scorer
        self.unk_score_offset = unk_score_offset
        self.alpha, self.beta = alpha, beta
        self.score_boundary = True
        self._states = StateScorer(scorer, endings=endings)
        self._words = None if unigrams is None else CharTrie.fromkeys(unigrams)

    def reset_params(self, **params: Any) -> None:
        """What `BeamSearchDecoderCTC.reset_params` calls; what is None does not change.

        Args:
            params: alpha, beta, unk_score_offset: numbers; score_boundary: a bool.

        Raises:
            ValueError: another name, or a value of another kind; nothing is changed then.
        """
        given = {name: value for name, value in params.items() if value is not None}
        for name, value in given.items():
            if name not in PARAMETERS:
                raise ValueError(f"{name} is no parameter; {', '.join(PARAMETERS)} are")
            wanted = bool if name == "score_boundary" else numbers.Real
            if not isinstance(value, wanted) or (wanted is not bool and (
                    isinstance(value, bool) or not math.isfinite(value))):
                raise ValueError(f"{name} = {value!r}; a "
                                 f"{'bool' if wanted is bool else 'finite number'} expected")
        for name, value in given.items():
            setattr(self, name, value if name == "score_boundary" else float(value))

    def save_to_dir(self, filepath: str | os.PathLike[str]) -> None:
        """What `BeamSearchDecoderCTC.save_to_dir` calls: the model file and all settings.

        Args:
            filepath: a folder; made if it is not there. The model file is linked where the file
                system can, else copied.

        Raises:
            ValueError: the scorer has a function as casing or tokenizer, which no file can hold.
        """
        folder, options = Path(filepath), dict(self.scorer.options)
        for name in ("casing", "tokenizer"):
            if callable(options[name]):
                raise ValueError(f"the scorer's {name} is a function, which cannot be saved; save "
                                 "its file and settings yourself")
        folder.mkdir(parents=True, exist_ok=True)
        _link(self.scorer._path, folder / MODEL)
        if options["truecaser"]:
            _link(options["truecaser"], folder / TRUECASER)
            options["truecaser"] = TRUECASER
        if self._words is not None:
            words = sorted(self._words)
            (folder / UNIGRAMS).write_text("".join(word + "\n" for word in words), "utf-8")
        settings = {name: getattr(self, name) for name in PARAMETERS}
        (folder / ATTRIBUTES).write_text(json.dumps(
            {**settings, "endings": self._states.endings, "scorer": options}, indent=2), "utf-8")

    @classmethod
    def load_from_dir(cls, filepath: str | os.PathLike[str], unigram_encoding: str | None = None,
                      **options: Any) -> PyctcdecodeLM:
        """The adapter that `save_to_dir` saved, with a scorer of its own.

        Args:
            options: of the scorer, in place of those saved, such as device="cuda".

        Raises:
            ValueError: the folder holds no such adapter, kenlm's perhaps.
        """
        folder = Path(filepath)
        if not (folder / ATTRIBUTES).is_file() or not (folder / MODEL).is_file():
            raise ValueError(f"{folder} has no {ATTRIBUTES} and {MODEL}: it is not of an lmfusion "
                             "adapter")
        saved = json.loads((folder / ATTRIBUTES).read_text("utf-8"))
        scorer_options = saved["scorer"] | options
        if scorer_options["truecaser"] == TRUECASER:
            scorer_options["truecaser"] = folder / TRUECASER
        words = None
        if (folder / UNIGRAMS).is_file():
            words = (folder / UNIGRAMS).read_text(unigram_encoding or "utf-8").splitlines()
        lm = cls(LMFusionScorer(folder / MODEL, **scorer_options), unigrams=words,
                 endings=saved["endings"])
        lm.reset_params(**{name: saved[name] for name in PARAMETERS})
        return lm

    @property
    def order(self) -> int:
        """Words of history that matter: all."""
        return UNBOUNDED_ORDER

    def get_start_state(self) -> State:  # type: ignore[override]  # there, a state of kenlm
        """The state before the first word."""
        return self._states.start()

    def score_partial_token(self, partial_token: str) -> float:
        """0, or a penalty where no word begins so."""
        if self._words is None or not partial_token or self._words.has_node(partial_token):
            return 0.0
        return self._unknown(partial_token)

    def score(self, prev_state: State, word: str,
              is_last_word: bool = False) -> tuple[float, State]:
        """Weighted score of a word, and of the end after the last; the last may be empty."""
        score, state = 0.0, prev_state
        if word:
            log_prob, state = self._states.score(prev_state, word)
            score = self._weight * log_prob + self._bonus + self._penalty(word)
        if is_last_word and self.score_boundary:
            score += self._weight * self._states.finish(state)
        return score, state

    def score_batch(self, questions: Sequence[tuple[State, str, bool]],
                    least: Sequence[float]) -> list[tuple[float, State]]:
        """`score` of many (state before, word, is it the last?), in one call of the model.

        Args:
            questions: as the arguments of `score`.
            least: [questions]; a score that is below for certain is -inf instead, and its word is
                computed only as far as it takes to know that.
        """
        weight, bonus = self._weight, self._bonus
        # What can be added to the words, at most; several endings may begin alike.
        most = weight * math.log(max(1, len(self._states.endings)))
        found: list[tuple[float, State]] = [(0.0, state) for state, _, _ in questions]
        asked, floors = [], []
        for i, ((_, word, last), low) in enumerate(zip(questions, least, strict=True)):
            if word:
                extra = bonus + (most if last and self.score_boundary else 0.0)
                extra += self._penalty(word)
                floors.append((low - extra) / weight if weight > 0 else -math.inf)
                asked.append(i)
        scored = self._states.score_batch([questions[i][:2] for i in asked], floors)
        for i, (log_prob, state) in zip(asked, scored):
            if log_prob == -math.inf and weight > 0:
                found[i] = -math.inf, state
                continue
            found[i] = weight * log_prob + bonus + self._penalty(questions[i][1]), state
        for i, low in enumerate(least):
            if weight > 0 and found[i][0] < low - (most if questions[i][2] else 0.0):
                found[i] = -math.inf, found[i][1]
        ends = [i for i, (_, _, last) in enumerate(questions)
                if last and self.score_boundary and found[i][0] > -math.inf]
        finished = self._states.finish_batch([found[i][1] for i in ends]) if ends else []
        for i, end in zip(ends, finished):
            found[i] = found[i][0] + weight * end, found[i][1]
        return found

    @property
    def _weight(self) -> float:
        return self.scorer.weight if self.alpha is None else self.alpha

    @property
    def _bonus(self) -> float:
        return self.scorer.word_insertion_bonus if self.beta is None else self.beta

    def _penalty(self, word: str) -> float:
        """Of a word that is not one of the vocabulary; 0 for all others."""
        known = self._words is None or word in self._words
        return 0.0 if known else self._unknown(word)

    def _unknown(self, word: str) -> float:
        # The same for a word as for its beginning: an end of the word must not pay.
        return self.unk_score_offset * max(1.0, len(word) / WORD_LENGTH)
