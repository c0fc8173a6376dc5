"""Logs of the server, of bounded size."""

from __future__ import annotations

import logging
import time
import warnings
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, cast

from sotglp.errors import SotglpError
from sotglp.files.atomic import os_reason

ACCESS_LOG = logging.getLogger("sotglp.access")

_FILE_BYTES = 10 * 10**6
_N_FILES = 5


class BoundedRate(logging.Filter):
    """Passes ``n`` messages in each period of some seconds, and then says how many were left out."""

    def __init__(self, n: int = 30, seconds: float = 60.0) -> None:
        super().__init__()
        self._n, self._seconds = n, seconds
        self._began = -seconds
        self._n_seen = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a message."""
        now = time.monotonic()
        if now - self._began >= self._seconds:
            if self._n_seen > self._n:
                record.msg = f"{record.getMessage()} ({self._n_seen - self._n} earlier messages were left out)"
                record.args = None
            self._began, self._n_seen = now, 0
        self._n_seen += 1
        return self._n_seen <= self._n


def bound_error_log() -> None:
    """Bound what errors and warnings write, each of which a request may cause."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(one, BoundedRate) for one in handler.filters):
            handler.addFilter(BoundedRate())
    show, bounded = warnings.showwarning, BoundedRate()

    def show_few(message: Warning | str, *arguments: Any) -> None:
        if bounded.filter(logging.makeLogRecord({"msg": "%s", "args": (message,)})):
            show(message, *arguments)

    cast(Any, warnings).showwarning = show_few


def open_access_log(path: Path) -> None:
    """Write a line for each request to a file, which is replaced at 10 MB; the last five are kept.

    Raises
    ------
    SotglpError
        If the file can't be written.
    """
    try:
        handler = RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_N_FILES, encoding="utf-8")
    except OSError as error:
        raise SotglpError(f"can't write the access log {path} ({os_reason(error)}): give another file") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    ACCESS_LOG.addHandler(handler)
    ACCESS_LOG.setLevel(logging.INFO)
    ACCESS_LOG.propagate = False
