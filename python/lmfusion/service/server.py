"""Runs a service until SIGTERM or SIGINT, then finishes what was begun."""

from __future__ import annotations

import socket
from pathlib import Path

import uvicorn

from lmfusion.service.application import Service
from lmfusion.service.log import LOGGER, log_to_stderr

LOCAL = ("127.0.0.1", "::1", "localhost")


class Server:
    """A `Service` on a port.

    Args:
        service: what answers.
        host, port: where; port 0 takes a free one.
        certificate, key: files of TLS; without them the service speaks plain HTTP.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, service: Service, *, host: str = "127.0.0.1", port: int = 8000,
                 certificate: Path | None = None, key: Path | None = None) -> None:
        self._service, self._host, self._tls = service, host, certificate is not None
        config = uvicorn.Config(
            service.application, host=host, port=port, log_config=None, access_log=False,
            limit_concurrency=service.limits.connections, timeout_keep_alive=75,
            timeout_graceful_shutdown=int(service.limits.drain_seconds) or 1,
            server_header=False, lifespan="off", ssl_certfile=certificate, ssl_keyfile=key)
        self._server = uvicorn.Server(config)
        self._socket = _bound(host, port)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{port}"

    def run(self) -> None:
        """Answers until a signal comes. New connections are then refused, calls in progress and
        those that wait are answered, for `drain_seconds` at most."""
        log_to_stderr()
        if self._host not in LOCAL and not self._service.access:
            LOGGER.warning("everybody who reaches this port may call; use --token-file")
        elif self._host not in LOCAL and not self._tls:
            LOGGER.warning("tokens and texts pass in the clear; use TLS here or in a proxy before")
        LOGGER.info("listening", extra={"fields": {"url": self.url, "model": self._service.name}})
        self._server.run(sockets=[self._socket])
        LOGGER.info("stopped")

    def stop(self) -> None:
        """As a signal; for servers in a thread."""
        self._server.should_exit = True


BACKLOG = 2048  # connections that are not taken yet; uvicorn's own


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(BACKLOG)  # who comes before the first answer waits
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"port {port} of {host} cannot be had: {error.strerror}; "
                      "choose another with --port") from None
    return bound
