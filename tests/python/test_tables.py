"""The tables of options and counters, and all that follows from them."""

from __future__ import annotations

import importlib.util
import inspect
import json
import pickle
from pathlib import Path

import lmfusion
import pytest
from lmfusion import _core

ROOT = Path(__file__).parents[2]
COUNTED = [name for name, is_counted, _, _ in _core.stats_fields() if is_counted]


def busy(bundle: Path) -> lmfusion.LMFusionScorer:
    """A scorer of a device that counts as much as can be without a GPU."""
    whole = lmfusion.LMFusionScorer(bundle)
    whole.score_texts(["the cat sat on the mat"])
    bytes_a_token = whole.stats().cache_bytes // whole.stats().cached_tokens
    scorer = lmfusion.LMFusionScorer(bundle, device="emulated", max_context_length=20,
                                     kv_cache_bytes=40 * bytes_a_token, selfcheck_every=2)
    for i in range(4):
        scorer.score_continuations([f"{i} the cat sat on the mat " * 3], [["and", "cats"]])
    scorer.score_continuations(["3 the cat sat on the mat " * 3], [["and"]])
    return scorer


def test_every_counter_is_shown_everywhere(bundle: Path) -> None:
    stats = busy(bundle).stats()
    names = [name for name, _, _, _ in _core.stats_fields()]
    assert len(names) == len(set(names)) >= 27
    fields = stats.to_dict()
    assert list(fields) == names
    assert json.loads(stats.to_json()) == fields
    for name, value in fields.items():
        assert getattr(stats, name) == value
        assert f"{name}=" in repr(stats)
        assert inspect.getdoc(getattr(_core.Stats, name))
    assert pickle.loads(pickle.dumps(stats)) == stats
    assert {type(value) for value in fields.values()} == {int, float, bool}


def test_a_reset_leaves_no_counter(bundle: Path) -> None:
    scorer = busy(bundle)
    before = scorer.stats().to_dict()
    # Of a GPU, and of a cache that is wrong (test_selfcheck.py).
    not_here = {"forwards_replayed", "selfcheck_failures"}
    assert {name for name in COUNTED if before[name] == 0} <= not_here
    scorer.reset_stats()
    after = scorer.stats().to_dict()
    assert {name: after[name] for name in COUNTED} == dict.fromkeys(COUNTED, 0)
    assert after["latency_p50"] == 0
    assert after["cached_tokens"] == before["cached_tokens"] > 0
    assert after["weight_bytes"] == before["weight_bytes"] > 0


def test_stats_of_several_scorers_add_up(bundle: Path) -> None:
    a, b = busy(bundle).stats(), lmfusion.LMFusionScorer(bundle).stats()
    both, one, other = (a + b).to_dict(), a.to_dict(), b.to_dict()
    for name in COUNTED + ["cache_bytes", "weight_bytes"]:
        assert both[name] == pytest.approx(one[name] + other[name])
    assert both["latency_p99"] == one["latency_p99"] > 0
    assert both["cached"] is True


def test_working_memory_is_counted_once_for_all_scorers(bundle: Path) -> None:
    scorers = [lmfusion.LMFusionScorer(bundle) for _ in range(2)]
    for scorer in scorers:
        scorer.score_texts(["the cat sat on the mat"])
    one, other = (scorer.stats() for scorer in scorers)
    assert 0 < one.scratch_bytes == other.scratch_bytes <= 64 << 20  # what lies ready: none runs
    assert (one + other).scratch_bytes == one.scratch_bytes


def test_the_stub_and_the_page_are_those_of_the_tables() -> None:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "scripts" / "write_tables.py")
    assert spec is not None and spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    advice = "run scripts/write_tables.py"
    assert tables.STUB.read_text() == tables.stub(), advice
    assert tables.REFERENCE.read_text() == tables.reference(), advice


def test_the_keywords_of_a_scorer_are_the_options() -> None:
    keywords = {parameter.name: parameter.default for parameter
                in inspect.signature(lmfusion.LMFusionScorer).parameters.values()
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
    described = inspect.getdoc(lmfusion.LMFusionScorer) or ""
    assert all(f"{name}:" in described or f"{name}," in described for name in keywords)
    del keywords["compat"], keywords["tokenizer"]  # no plain values
    if keywords["truecaser"] is None:
        keywords["truecaser"] = ""
    assert keywords == {name: default for name, default, _ in _core.option_fields()}


def test_every_option_is_shown_and_kept(bundle: Path) -> None:
    given = {"weight": 0.7, "bos": "none", "kv_cache_bytes": 1 << 20, "mode": "grouped",
             "boundary": "word", "max_batch_tokens": 7}
    scorer = lmfusion.LMFusionScorer(bundle, **given)
    assert scorer.options.items() >= given.items()
    assert set(scorer.options) == {name for name, _, _ in _core.option_fields()} | {"tokenizer"}
    for name, value in scorer.options.items():
        assert f"{name}={value!r}" in repr(scorer)
    assert lmfusion.LMFusionScorer(bundle).options["kv_cache_bytes"] == "auto"
    with pytest.raises(TypeError, match="no option wieght"):
        _core.LMFusionScorer(str(bundle), wieght=1.0)


def test_functions_are_shown(bundle: Path) -> None:
    def shout(text: str) -> str:
        return text.upper()

    scorer = lmfusion.LMFusionScorer(bundle, casing=shout)
    assert "casing=<function" in repr(scorer) and "shout" in repr(scorer)
    assert 'casing="none"' not in repr(scorer._core)
    assert scorer.options["casing"] is shout
