"""What a service takes at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of one service.

    Raises:
        ValueError: one of them is not above 0 (`queue` may be 0).
    """

    concurrency: int = 64  # calls in the scorer, which joins them in forward passes
    queue: int = 256  # calls that wait for one of these places; more get 429
    connections: int = 1024  # open ones; more get 503
    body_bytes: int = 8 << 20  # of one request; more get 413
    held_bytes: int = 256 << 20  # of all bodies that are held at a time; more get 429
    body_seconds: float = 10.0  # for a body to arrive; 408 after that
    candidates: int = 65_536  # words or texts of one request; more get 413
    positions: int = 64  # whose likeliest tokens one request may ask for (/v1/completions)
    drain_seconds: float = 30.0  # for calls in progress after SIGTERM

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name != "queue"):
                raise ValueError(f"{name} = {value!r}; a number above 0 expected")
