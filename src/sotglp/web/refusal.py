"""Requests that are refused, with the HTTP status that says so."""

from __future__ import annotations

from sotglp.errors import SotglpError

RETRY_SECONDS = 1
"""What Retry-After tells a client that came at a busy time."""


class RefusalError(SotglpError):
    """A request can't be served; ``status`` is that of the answer, the message what it says."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BusyError(RefusalError):
    """A request came at a bad time, and may succeed later."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message)


class TooLargeError(RefusalError):
    """A request is larger than the limits allow."""

    def __init__(self, message: str) -> None:
        super().__init__(413, message)
