"""A request that is not answered, and why."""

from __future__ import annotations


class Refusal(Exception):
    """Becomes the answer to its request.

    Args:
        status: of HTTP.
        kind: name of the error in the answer.
        message: what was wrong and what to do; without texts of the call.
        retry_after: seconds after which trying again makes sense; None: it does not.
    """

    def __init__(self, status: int, kind: str, message: str,
                 retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.retry_after = status, kind, message, retry_after
