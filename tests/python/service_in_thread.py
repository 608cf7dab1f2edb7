"""A service in a thread of this process, for tests and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import lmfusion
from lmfusion.service.access import Access
from lmfusion.service.application import Service
from lmfusion.service.limits import Limits
from lmfusion.service.server import Server


@contextmanager
def running(scorer: lmfusion.LMFusionScorer, *, tokens: dict[str, str] | None = None,
            port: int = 0, **limits: float) -> Iterator[Server]:
    """A server that is stopped, and its calls finished, at the end of the block."""
    service = Service(scorer, access=Access(tokens or {}),
                      limits=Limits(**limits), name="tiny")  # type: ignore[arg-type]
    server = Server(service, port=port)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive()
