"""The client's side of HTTP: one request, tried again for as long as that is safe and useful."""

from __future__ import annotations

import json
import random
import time
from typing import Any

from lmfusion.errors import Error, ServiceError
from lmfusion.service.wire import raised_again

AGAIN = (408, 429, 502, 503, 504)  # busy, stopping, or a proxy that found nobody
FIRST_WAIT = 0.05  # seconds; doubled at every try
LONGEST_WAIT = 2.0
GRACE = 1.0  # seconds that an answer may be later than its deadline


class TooLate(Error):
    """A deadline passed before an answer came."""


class Connection:
    """Connections to one service; of any number of threads.

    Every call is a question with one answer, so asking twice changes nothing, and lost connections,
    busy and restarting services are asked again.

    Args:
        url: such as http://localhost:8000.
        token: sent as a bearer.
        timeout: seconds that one answer may take.
        retry_seconds: how long a call goes on trying after its first failure.

    Raises:
        ModuleNotFoundError: httpx is not installed.
    """

    def __init__(self, url: str, token: str | None, timeout: float, retry_seconds: float) -> None:
        import httpx
        self._httpx = httpx
        self.url, self._timeout, self._retry_seconds = url, timeout, retry_seconds
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout,
                                  limits=httpx.Limits(max_connections=None))
        self.retries = 0

    def get(self, path: str) -> Any:
        """The document at a path."""
        return self._ask("GET", path, None, None)

    def post(self, path: str, document: dict[str, Any], until: float | None = None) -> Any:
        """What the service answers.

        Args:
            until: of time.monotonic(); the document then gets `deadline`, the seconds left.

        Raises:
            TooLate: `until` passed.
            ServiceError: there is no answer, or the service refuses.
            Exception: the scorer's own errors, as it would have raised them here.
        """
        return self._ask("POST", path, document, until)

    def _ask(self, method: str, path: str, document: dict[str, Any] | None,
             until: float | None) -> Any:
        wait, give_up = FIRST_WAIT, 0.0
        while True:
            answer, problem, wanted = self._try(method, path, document, until)
            if answer is not None:
                return answer
            now = time.monotonic()
            give_up = give_up or now + self._retry_seconds
            pause = max(wanted, wait * random.uniform(0.5, 1.0))
            if until is not None and now + pause >= until:
                raise TooLate(str(problem)) from problem
            if now + pause >= give_up:
                raise problem
            time.sleep(pause)
            self.retries += 1
            wait = min(2 * wait, LONGEST_WAIT)

    def _try(self, method: str, path: str, document: dict[str, Any] | None, until: float | None
             ) -> tuple[Any, ServiceError, float]:
        """(answer or None, what went wrong, seconds to wait at least)."""
        timeout = self._timeout
        if until is not None and document is not None:
            left = until - time.monotonic()
            if left <= 0:
                raise TooLate("the deadline passed")
            document = document | {"deadline": left}
            timeout = min(timeout, left + GRACE)
        body = None if document is None else json.dumps(document, ensure_ascii=False).encode()
        nothing = ServiceError("")
        try:
            response = self._http.request(method, path, content=body, timeout=timeout)
        except self._httpx.TransportError as error:
            name = type(error).__name__
            return None, ServiceError(f"{self.url}{path}: {name} ({error}); is the service there, "
                                      "and is this its address?"), 0.0
        if response.status_code == 200:
            return response.json(), nothing, 0.0
        kind, message = _problem(response)
        problem = ServiceError(f"{self.url}{path}: {response.status_code} {message}",
                               status=response.status_code)
        if response.status_code in AGAIN:
            return None, problem, _seconds(response.headers.get("retry-after"))
        raise raised_again(kind, message) or problem

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()


def _problem(response: Any) -> tuple[str, str]:
    """The kind and text of an error document; of a proxy's page nothing but its status."""
    try:
        error = response.json()["error"]
        return str(error["type"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "", "without a reason"


def _seconds(header: str | None) -> float:
    return float(header) if header and header.isascii() and header.isdigit() else 0.0
