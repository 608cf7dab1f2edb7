"""Logs with one JSON object a line; never a text of a call, never a token."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("lmfusion.service")


class JsonLines(logging.Formatter):
    """time, level, event, and the fields that were given as `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "event": record.getMessage(),
            **getattr(record, "fields", {})}
        if record.exc_info and record.exc_info[0]:
            # The kind and the places only: a message could quote what was asked.
            document["error"] = record.exc_info[0].__name__
            document["traceback"] = _places(record.exc_info[2])
        return json.dumps(document)


def _places(traceback: Any) -> list[str]:
    places = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places


def log_to_stderr(level: str = "info") -> None:
    """Sends this package's and uvicorn's logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger("uvicorn.access").setLevel("WARNING")  # there is a line a request already
    for name in ("lmfusion.service", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
