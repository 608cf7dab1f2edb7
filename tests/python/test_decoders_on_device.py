"""All tests of combined scorers and of what decoders use once more, with a device as the default."""

from __future__ import annotations

from test_adapters import *  # noqa: F403
from test_combined import *  # noqa: F403
from test_scorer_on_device import device  # noqa: F401
