"""Documents in memory: lists of hypotheses, and what holds several of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmfusion.nbest import (
    ctc_decoders,
    espnet,
    hypr,
    icefall,
    nemo,
    pyctcdecode,
    records,
    tables,
    texts,
    vosk,
    whisper,
)
from lmfusion.nbest.hypothesis import Form, is_number, value_of
from lmfusion.nbest.shape import Lists, Shape, reordered

# The first that matches is taken: special ones before those that have names in common with them.
FORMS = (texts.TEXT, texts.PAIR, pyctcdecode.BEAM_TUPLE, espnet.TUPLE, espnet.S2T_TUPLE,
         pyctcdecode.BEAM_OBJECT, ctc_decoders.TORCHAUDIO, ctc_decoders.FLASHLIGHT, espnet.RESULT,
         nemo.HYPOTHESIS, whisper.TRANSCRIPTION, whisper.DECODED, whisper.SEGMENTS, icefall.SHERPA,
         icefall.ICEFALL, vosk.ALTERNATIVE, records.RECORD)
LIST_FIELDS = ("nbest", "n_best", "hypotheses", "hyps", "alternatives")
_SCORE_LISTS = tuple(each for name in records.SCORE_FIELDS for each in (name, f"{name}s"))
NAME_FIELDS = ("utterance", "utterance_id", "utt", "utt_id", "uttid", "id", "key",
               "audio_filepath")


def form_of(hypotheses: Any) -> Form | None:
    """The form of the first hypothesis of a list; None where it has none."""
    first = next(iter(hypotheses), None)
    return next((form for form in FORMS if form.matches(first)), None)


def _is_sequence(document: Any) -> bool:
    return isinstance(document, (list, tuple)) and not hasattr(document, "_fields")


def _is_list(document: Any) -> bool:
    return _is_sequence(document) and (not document or form_of(document) is not None)


def _one_list(document: Any) -> Lists:
    segments = {value_of(each, "segment") for each in document
                if icefall.SHERPA.matches(each)}
    if len(segments) > 1:
        raise ValueError("these sherpa-onnx results are segments of one stream, not hypotheses of "
                         "one utterance; give a list of hypotheses for every segment")
    yield None, document, None


ONE_LIST = Shape("list of hypotheses", _is_list, _one_list,
                 lambda document, orders: reordered(document, next(orders)))


def _is_many(document: Any) -> bool:
    return _is_sequence(document) and bool(document) and all(
        shape_of(each) is not None for each in document)


def _many_lists(document: Any) -> Lists:
    if all(texts.has_spelled_score(each) for each in document):
        raise ValueError("hypotheses 0 and on are pairs of two texts, one of which spells a "
                         "number; a score is a number: float(score)")
    for each in document:
        shape = shape_of(each)
        assert shape is not None
        yield from shape.lists(each)


def _many_rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    rebuilt = []
    for each in document:
        shape = shape_of(each)
        assert shape is not None
        rebuilt.append(shape.rebuilt(each, orders))
    return type(document)(rebuilt)


MANY = Shape("list of utterances", _is_many, _many_lists, _many_rebuilt)


def _list_field(document: Any) -> str | None:
    return next((name for name in LIST_FIELDS if isinstance(document.get(name), (list, tuple))),
                None)


def _is_named(document: Any) -> bool:
    if not isinstance(document, Mapping) or (name := _list_field(document)) is None:
        return False
    return _is_list(document[name])


def _beside(document: Any) -> dict[str, Any]:
    """Of texts alone: the lists that stand beside them, one number or mark a text."""
    field = _list_field(document)
    found = document[field]
    if not found or not all(map(texts.TEXT.matches, found)):
        return {}
    return {name: value for name, value in document.items()
            if name != field and isinstance(value, (list, tuple)) and len(value) == len(found)}


def _hypotheses_of(document: Any) -> Any:
    """The hypotheses, with the scores beside them where these are a list of their own."""
    found, beside = document[_list_field(document)], _beside(document)
    scores = next((beside[name] for name in _SCORE_LISTS if name in beside), None)
    if scores is not None:
        return list(zip(found, scores))
    if numbers := [name for name, value in beside.items() if all(map(is_number, value))]:
        raise ValueError(f"texts with numbers beside them ({', '.join(numbers)}), none of which is "
                         f'named "score" or {", ".join(records.SCORE_FIELDS[1:])}')
    return found


def _named_lists(document: Any) -> Lists:
    name = next((str(document[field]) for field in NAME_FIELDS if field in document), None)
    yield name, _hypotheses_of(document), None


def _named_rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    order, field = next(orders), _list_field(document)
    moved = {name: reordered(value, order) for name, value in _beside(document).items()}
    return {**document, **moved, field: reordered(document[field], order)}


NAMED_LIST = Shape("mapping with a list of hypotheses", _is_named, _named_lists, _named_rebuilt)


def _is_by_name(document: Any) -> bool:
    if not isinstance(document, Mapping) or not document:
        return False
    if any(name in document for name in (*records.TEXT_FIELDS, *records.SCORE_FIELDS, "segments")):
        return False  # one hypothesis
    return all((_is_sequence(value) and _is_list(value)) or _is_named(value)
               for value in document.values())


def _by_name_lists(document: Any) -> Lists:
    for name, value in document.items():
        hypotheses = _hypotheses_of(value) if isinstance(value, Mapping) else value
        yield str(name), hypotheses, None


def _by_name_rebuilt(document: Any, orders: Iterator[list[int]]) -> Any:
    return {name: (_named_rebuilt(value, orders) if isinstance(value, Mapping)
                   else reordered(value, next(orders))) for name, value in document.items()}


BY_NAME = Shape("mapping of ids to lists of hypotheses", _is_by_name, _by_name_lists,
                _by_name_rebuilt)


def _is_manifest(document: Any) -> bool:
    return _is_sequence(document) and bool(document) and all(map(nemo.is_manifest_line, document))


# A list of manifest lines is a list of utterances, though each of them has a text.
_MANIFEST = Shape(nemo.MANIFEST_LINE.name, _is_manifest, _many_lists, _many_rebuilt)

SHAPES = (nemo.BEST_AND_ALL, _MANIFEST, nemo.MANIFEST_LINE, tables.ROWS, ONE_LIST, MANY,
          espnet.RESULTS, nemo.NBEST, pyctcdecode.BATCH, hypr.HYPR, NAMED_LIST, icefall.RESULTS,
          icefall.DICTIONARY, tables.TABLE, BY_NAME)


def shape_of(document: Any) -> Shape | None:
    """The shape of a document; None where it has none that is known."""
    return next((shape for shape in SHAPES if shape.matches(document)), None)
