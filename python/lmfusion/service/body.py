"""Bodies of requests, read within limits of size, time and of all that is held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from lmfusion.service.limits import Limits
from lmfusion.service.refusal import Refusal

GONE = 499  # what logs and metrics say of a client that left; nobody receives it


class Bodies:
    """Reads bodies; knows how many bytes of them are held."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held_bytes = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, held until the block ends.

        Raises:
            Refusal: it is too large, too slow, or too much is held already.
        """
        chunks: list[bytes] = []
        size = 0
        try:
            self._check(_announced(request))
            try:
                async with asyncio.timeout(self._limits.body_seconds):
                    async for chunk in request.stream():
                        size += len(chunk)
                        self.held_bytes += len(chunk)
                        self._check(size)
                        chunks.append(chunk)
            except TimeoutError:
                raise Refusal(408, "Timeout", "the body did not arrive within "
                              f"{self._limits.body_seconds:g} seconds") from None
            except ClientDisconnect:
                raise Refusal(GONE, "Gone", "the client left") from None
            yield b"".join(chunks)
        finally:
            self.held_bytes -= size

    def _check(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise Refusal(413, "TooLarge", f"the body has more than {self._limits.body_bytes} "
                          "bytes; ask in several requests")
        if self.held_bytes > self._limits.held_bytes:
            raise Refusal(429, "Busy", "too many bytes of requests are waiting; try again later",
                          retry_after=1)


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0
