"""Limits on requests, the quotas that all requests share, and the refusals when they are exceeded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import Field, model_validator
from typing_extensions import Self

from sotglp.errors import SotglpError
from sotglp.settings import Settings

MEGABYTE = 10**6

RETRY_SECONDS = 1
"""Value of the header Retry-After."""

NO_SPACE = "the server has no space left for temporary files: send less at once, or try again later"


class RefusalError(SotglpError):
    """A request is refused with an HTTP ``status`` and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BusyError(RefusalError):
    """The server is busy; the request may succeed later."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message)


class TooLargeError(RefusalError):
    """A request exceeds a limit."""

    def __init__(self, message: str) -> None:
        super().__init__(413, message)


class Limits(Settings):
    """Bounds on requests."""

    max_image_bytes: int = Field(20 * MEGABYTE, ge=1, description="bytes of an image file")
    max_images: int = Field(64, ge=1, description="images of a request")
    max_request_bytes: int = Field(256 * MEGABYTE, ge=1, description="bytes of a request")
    max_seconds: float = Field(60.0, gt=0, description="seconds of a request, including its upload")
    max_queued: int = Field(256, ge=1, description="images of all open requests")
    max_requests: int = Field(128, ge=1, description="open requests")
    max_added_classes: int = Field(100, ge=0, description="classes that are added")
    max_training_images: int = Field(1000, ge=2, description="images that the page trains on")
    max_training_bytes: int = Field(2000 * MEGABYTE, ge=1, description="bytes of these images, as they are kept")
    max_received_bytes: int = Field(1000 * MEGABYTE, ge=1, description="bytes of all open requests")

    @model_validator(mode="after")
    def _fit_a_full_request(self) -> Self:
        for of_one, of_all in (("max_images", "max_queued"), ("max_request_bytes", "max_received_bytes")):
            if getattr(self, of_all) < getattr(self, of_one):
                raise ValueError(f"{of_all} is below {of_one}, so a full request would never be accepted")
        return self


class Quota:
    """A number of units, such as bytes, that all requests share; ``what`` names the units in messages."""

    def __init__(self, n: int, what: str) -> None:
        self.n = n
        self.n_taken = 0
        self._what = what

    @contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Return a function that takes units until the end of the context; BusyError if too few are free."""
        own = 0

        def take(n: int) -> None:
            nonlocal own
            if self.n_taken + n > self.n:
                raise BusyError(f"the server has too many {self._what}: try again in a moment")
            self.n_taken += n
            own += n

        try:
            yield take
        finally:
            self.n_taken -= own
