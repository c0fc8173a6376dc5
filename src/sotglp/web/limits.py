"""What one request, and all of them together, may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import Field, model_validator
from typing_extensions import Self

from sotglp.settings import Settings
from sotglp.web.refusal import BusyError

MEGABYTE = 10**6


class Limits(Settings):
    """Bounds on requests."""

    max_image_bytes: int = Field(20 * MEGABYTE, ge=1, description="bytes of one image file")
    max_images: int = Field(64, ge=1, description="images of one request")
    max_request_bytes: int = Field(256 * MEGABYTE, ge=1, description="bytes of one request, all images together")
    max_seconds: float = Field(60.0, gt=0, description="seconds that a request may take, its upload too")
    max_queued: int = Field(256, ge=1, description="images that are received and not answered yet, of all requests")
    max_requests: int = Field(128, ge=1, description="requests that are open at once")
    max_received_bytes: int = Field(1000 * MEGABYTE, ge=1, description="bytes of all requests that are open")

    @model_validator(mode="after")
    def _a_full_request_is_taken(self) -> Self:
        for of_one, of_all in (("max_images", "max_queued"), ("max_request_bytes", "max_received_bytes")):
            if getattr(self, of_all) < getattr(self, of_one):
                raise ValueError(f"{of_all} is below {of_one}, so that a full request would never be served")
        return self


class Quota:
    """A number of places, some of them taken; who finds too few is to come back later.

    Parameters
    ----------
    n : int
        How many there are.
    what : str
        What takes them, for the message.
    """

    def __init__(self, n: int, what: str) -> None:
        self.n = n
        self.n_taken = 0
        self._what = what

    @contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """A function that takes so many places more; all of them are free again at the end of the context.

        Raises
        ------
        BusyError
            By that function, if fewer are free.
        """
        own = 0

        def take(n: int) -> None:
            nonlocal own
            if self.n_taken + n > self.n:
                raise BusyError(f"the server has too many {self._what} to look after: try again in a moment")
            self.n_taken += n
            own += n

        try:
            yield take
        finally:
            self.n_taken -= own
