"""A scorer that compares its cache with no cache finds what is wrong, and nothing else."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import lmfusion
import pytest
from devices import MakeScorer

CONTEXTS = ["the cat", "the", ""]
WORDS = [["sat", "on"], ["cat", "cats"], ["the"]]
HEADER = struct.Struct("<8sIIqqqQ")  # Note [Cache snapshot], src/cache/cache_snapshot.h


def with_other_log_prob(snapshot: Path) -> Path:
    """The file with 3 nats more for each token, and a checksum that fits."""
    content = bytearray(snapshot.read_bytes()[:-4])
    _, _, identity, nodes, *_ = HEADER.unpack_from(content)
    for node in range(nodes):
        place = HEADER.size + identity + 24 * node + 8
        log_prob, = struct.unpack_from("<f", content, place)
        struct.pack_into("<f", content, place, log_prob + 3)
    changed = snapshot.with_suffix(".changed")
    changed.write_bytes(content + struct.pack("<I", zlib.crc32(content)))
    return changed


@pytest.mark.parametrize("mode", ["tree", "grouped", "uncached"])
def test_a_right_cache_is_right(bundle: Path, make_scorer: MakeScorer, mode: str) -> None:
    scorer = make_scorer(bundle, boundary="word", mode=mode)
    before = scorer.log_probs(CONTEXTS, WORDS)
    assert scorer.selfcheck(CONTEXTS, WORDS) < 1e-4
    stats = scorer.stats()
    assert (stats.calls, stats.selfchecks, stats.selfcheck_failures) == (2, 1, 0)
    held = stats.cached_tokens
    after = scorer.log_probs(CONTEXTS, WORDS)
    assert [score for row in after for score in row] == pytest.approx(
        [score for row in before for score in row], abs=0 if mode == "tree" else 1e-4)
    assert scorer.stats().cached_tokens == held
    with pytest.raises(ValueError, match="3 contexts and 1 lists"):
        scorer.selfcheck(CONTEXTS, WORDS[:1])


def test_a_wrong_cache_is_found(bundle: Path, make_scorer: MakeScorer, tmp_path: Path) -> None:
    scorer = make_scorer(bundle)
    scorer.log_probs(CONTEXTS, WORDS)
    scorer.save_cache(tmp_path / "right")
    wrong = with_other_log_prob(tmp_path / "right")
    scorer = make_scorer(bundle, selfcheck_every=3)
    scorer.load_cache(wrong)
    assert scorer.selfcheck(CONTEXTS, WORDS) == pytest.approx(3, abs=1e-3)
    for calls, failures in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3)):
        scorer.log_probs(CONTEXTS, WORDS)
        stats = scorer.stats()
        assert (stats.selfchecks, stats.selfcheck_failures) == (failures, failures), calls
    scorer.clear_cache()
    assert scorer.selfcheck(CONTEXTS, WORDS) < 1e-4
    assert scorer.stats().selfcheck_failures == 3


def test_a_plain_model_has_nothing_to_differ(tmp_path: Path) -> None:
    import tiny_models
    from lmfusion.exporter import export
    model = tiny_models.build(tiny_models.PLAIN_CONFIGS["bloom"]())
    plain = export(model, tiny_models.tiny_tokenizer(), tmp_path / "plain.lmf", uncached=True)
    scorer = lmfusion.LMFusionScorer(plain, selfcheck_every=1)
    scorer.log_probs(CONTEXTS, WORDS)
    assert (scorer.stats().selfchecks, scorer.stats().selfcheck_failures) == (1, 0)
