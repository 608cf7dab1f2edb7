"""All tests of the scorer once more, with a device as the default of its option `device`."""

from __future__ import annotations

import lmfusion
import pytest
from test_device import DEVICES
from test_scorer import *  # noqa: F403
from test_words import *  # noqa: F403

# Plain models run on the CPU only.
del test_a_plain_module_is_scored_without_a_cache  # noqa: F821


@pytest.fixture(params=DEVICES, autouse=True)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lmfusion.LMFusionScorer.__init__.__kwdefaults__["device"] == "cpu"
    monkeypatch.setitem(lmfusion.LMFusionScorer.__init__.__kwdefaults__, "device", request.param)
