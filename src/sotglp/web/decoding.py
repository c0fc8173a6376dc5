"""Decoding of uploads in worker processes: several ordinary images at once, large or slow ones one at a time."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from typing import TypeVar

import anyio
from anyio import to_process, to_thread

from sotglp.errors import UnreadableImageError
from sotglp.web.decode_worker import LARGE, ORDINARY, Bounds, Work, run_within
from sotglp.web.limits import Quota
from sotglp.web.uploads import Upload

_MAX_WAITING = 16
"""Requests with large images that wait for their turn; more of them are refused, so that they can't fill the server."""

ResultT = TypeVar("ResultT")


class Decoders:
    """The worker processes of a server.

    Files come from strangers, and a decoder may take any time or memory for a small one. Processes have limits and are
    killed when the request ends; threads can't be. An image that has more pixels or takes more time than an ordinary
    one is decoded again with higher limits, alone and with low priority. All requests together thus decode at most
    ``n_processes`` x ``ORDINARY.max_pixels`` + ``LARGE.max_pixels`` pixels at once.
    """

    def __init__(self, ordinary: Bounds = ORDINARY, large: Bounds = LARGE) -> None:
        self.bounds_of_ordinary, self.bounds_of_large = ordinary, large
        self.n_processes = min(max(os.cpu_count() or 1, 2), 8)
        self.ordinary = asyncio.Semaphore(self.n_processes)
        self.large = asyncio.Lock()
        self.waiting = Quota(_MAX_WAITING, "large images")

    async def start(self) -> None:
        """Start the processes, so that the first requests need not wait for them."""
        await asyncio.gather(*(in_process(len, b"", self.bounds_of_ordinary) for _ in range(self.n_processes)))

    def of_request(self) -> RequestDecoder:
        """Return what decodes the images of one request."""
        return RequestDecoder(self)


class RequestDecoder:
    """Decodes the images of one request, which take turns with those of other requests."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._ordinary = asyncio.Semaphore(decoders.n_processes)
        self._large = asyncio.Lock()
        self._is_slow = False

    async def run(self, upload: Upload, work: Work[ResultT]) -> ResultT:
        """Return what a function makes of an image file in a worker process.

        Raises
        ------
        UnreadableImageError
            If the file can't be decoded, or not within the limits.
        BusyError
            If too many requests with large images wait.
        """
        bounds = self._decoders.bounds_of_large
        try:
            async with self._ordinary:
                # After one slow image, those that follow in the same request are probably slow too.
                if not self._is_slow:
                    async with self._decoders.ordinary:
                        done = await self._try(upload, work)
                    if done is not None:
                        return done[0]
            async with self._large:
                with self._decoders.waiting.held() as take:
                    take(1)
                    async with self._decoders.large:
                        return await in_own_process(work, await to_thread.run_sync(upload.read), bounds)
        except UnreadableImageError as error:
            raise UnreadableImageError(upload.name or "an image without a name", error.reason) from error

    async def _try(self, upload: Upload, work: Work[ResultT]) -> tuple[ResultT] | None:
        """Decode an ordinary image; None for a large or slow one."""
        content = await to_thread.run_sync(upload.read)
        try:
            is_ordinary, result = await in_process(work, content, self._decoders.bounds_of_ordinary)
        except anyio.BrokenWorkerProcess:
            self._is_slow = True
            return None
        return (result,) if is_ordinary else None  # type: ignore[return-value]


async def in_process(work: Work[ResultT], content: bytes, bounds: Bounds) -> tuple[bool, ResultT | None]:
    """Call ``run_within`` in one of the processes that wait for work; BrokenWorkerProcess if it exceeds its limits."""
    limiter = anyio.CapacityLimiter(1)
    return await to_process.run_sync(run_within, bounds, work, content, cancellable=True, limiter=limiter)


async def in_own_process(work: Work[ResultT], content: bytes, bounds: Bounds) -> ResultT:
    """Call ``run_within`` in a new process of low priority."""
    command = [sys.executable, "-m", "sotglp.web.decode_worker"]
    request = pickle.dumps((bounds, work, content))
    done = await anyio.run_process(command, input=request, stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise UnreadableImageError(
            "",
            f"decoding it takes more than {bounds.seconds} seconds or too much memory (a possible decompression bomb); "
            "make it smaller, or save it as JPEG or PNG",
        )
    result = pickle.loads(done.stdout)
    if isinstance(result, Exception):
        raise result
    found: ResultT = result[1]
    return found
