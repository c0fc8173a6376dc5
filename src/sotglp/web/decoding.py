"""Decoding of uploads in worker processes: several ordinary images at once, large or slow ones one at a time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import anyio
from anyio import to_thread
from PIL import Image

from sotglp.errors import UnreadableImageError
from sotglp.images.value_range import ValueRanges
from sotglp.runtime.preprocessing import Preprocessing
from sotglp.web.decode_worker import LARGE, ORDINARY, Bounds
from sotglp.web.limits import Quota
from sotglp.web.messages import Message, read_message, write_message
from sotglp.web.uploads import Upload

_MAX_WAITING = 16
"""Requests with large images that wait for their turn; more of them are refused, so that they can't fill the server."""

_MAX_ANSWER = 2**28

_COMMAND = (sys.executable, "-m", "sotglp.web.decode_worker")


@dataclass(frozen=True)
class FramedImage:
    """A picture resized and cropped to a model's input, and the size of the upright picture."""

    image: Image.Image
    width: int
    height: int


@dataclass(frozen=True)
class Job:
    """A job of :mod:`sotglp.web.decode_worker`, and its arguments."""

    name: str
    arguments: Mapping[str, Any]


class WorkerEndedError(Exception):
    """A worker process ended before it answered."""


class Worker:
    """A worker process; its methods block."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def ask(self, bounds: Bounds, job: Job, upload: Upload) -> Message:
        """Return the answer.

        Raises
        ------
        WorkerEndedError
            If the process ends before, or answers with something else.
        """
        request = {"job": job.name, "arguments": job.arguments, "bounds": [bounds.max_pixels, bounds.seconds]}
        try:
            write_message(cast(BinaryIO, self._process.stdin), request, upload.read())
            return read_message(cast(BinaryIO, self._process.stdout), _MAX_ANSWER)
        except (EOFError, BrokenPipeError, ValueError) as error:
            self.end()
            raise WorkerEndedError from error

    def ask_last(self, bounds: Bounds, job: Job, upload: Upload) -> Message:
        """Like :meth:`ask`; the process ends afterwards."""
        try:
            return self.ask(bounds, job, upload)
        finally:
            self.end()

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Let the process end without waiting, and with it :meth:`ask` in another thread."""
        self._process.kill()

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # The rest of a request can't be written any more.
                with suppress(OSError):
                    pipe.close()


class Decoders:
    """The worker processes of a server; :meth:`close` ends them.

    Files come from strangers, and a decoder may take any time or memory for a small one. Processes have limits and are
    killed when the request ends; threads can't be. An image that has more pixels or takes more time than an ordinary
    one is decoded again with higher limits, alone and with low priority. All requests together thus decode at most
    ``n_processes`` x ``ORDINARY.max_pixels`` + ``LARGE.max_pixels`` pixels at once.
    """

    def __init__(self, ordinary: Bounds = ORDINARY, large: Bounds = LARGE, command: Sequence[str] = _COMMAND) -> None:
        self.bounds_of_ordinary, self.bounds_of_large = ordinary, large
        self.n_processes = min(max(os.cpu_count() or 1, 2), 8)
        self.ordinary = asyncio.Semaphore(self.n_processes)
        self.large = asyncio.Lock()
        self.waiting = Quota(_MAX_WAITING, "large images")
        self._command = command
        self._idle: list[Worker] = []
        self._workers: list[Worker] = []

    def start(self) -> None:
        """Start the processes, so that the first requests need not wait for them."""
        self._idle += [self._started() for _ in range(self.n_processes)]

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.end()
        self._idle.clear()

    def of_request(self) -> RequestDecoder:
        """Return what decodes the images of one request."""
        return RequestDecoder(self)

    async def in_process(self, job: Job, upload: Upload) -> Message | None:
        """Run a job in one of the processes that wait for work; None for a large image.

        Raises
        ------
        WorkerEndedError
            If the process exceeds its limits.
        """
        worker = self._idle.pop() if self._idle else self._started()
        answer = await self._asked(worker, partial(worker.ask, self.bounds_of_ordinary, job, upload))
        self._idle.append(worker)
        return _result(answer)

    async def in_own_process(self, job: Job, upload: Upload) -> Message:
        """Run a job in a new process of low priority."""
        bounds = self.bounds_of_large
        worker = self._started("--background")
        try:
            result = _result(await self._asked(worker, partial(worker.ask_last, bounds, job, upload)))
        except WorkerEndedError:
            result = None
        if result is None:
            raise UnreadableImageError(
                "",
                f"decoding it takes more than {bounds.seconds} seconds or too much memory (a possible decompression "
                "bomb); make it smaller, or save it as JPEG or PNG",
            )
        return result

    def _started(self, *arguments: str) -> Worker:
        worker = Worker([*self._command, *arguments])
        self._workers = [other for other in self._workers if other.is_running] + [worker]
        return worker

    async def _asked(self, worker: Worker, ask: Callable[[], Message]) -> Message:
        try:
            return await to_thread.run_sync(ask, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        except BaseException:
            # The request was cancelled, its file can't be read, or the process has ended.
            worker.kill()
            raise


class RequestDecoder:
    """Decodes the images of one request, which take turns with those of other requests."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._ordinary = asyncio.Semaphore(decoders.n_processes)
        self._large = asyncio.Lock()
        self._is_slow = False

    async def frame(self, upload: Upload, preprocessing: Preprocessing, ranges: ValueRanges) -> FramedImage:
        """Return what a model sees of an image file; see :meth:`run` for errors."""
        job = Job("frame", {"settings": asdict(preprocessing), "ranges": dict(ranges)})
        header, pixels = await self.run(upload, job)
        image = Image.frombytes("RGB", preprocessing.size[::-1], pixels)
        return FramedImage(image, header["width"], header["height"])

    async def store(self, upload: Upload, path: Path, ranges: ValueRanges) -> None:
        """Write an image file to an ordinary one without metadata; see :meth:`run` for errors."""
        await self.run(upload, Job("store", {"path": str(path), "ranges": dict(ranges)}))

    async def keep(self, upload: Upload, path: Path, thumbnail: Path) -> None:
        """Write a picture to train on and a thumbnail of an image file; see :meth:`run` for errors."""
        await self.run(upload, Job("keep", {"path": str(path), "thumbnail": str(thumbnail)}))

    async def run(self, upload: Upload, job: Job) -> Message:
        """Return what a job makes of an image file in a worker process.

        Raises
        ------
        UnreadableImageError
            If the file can't be decoded, or not within the limits.
        BusyError
            If too many requests with large images wait.
        """
        try:
            async with self._ordinary:
                # After one slow image, those that follow in the same request are probably slow too.
                if not self._is_slow:
                    async with self._decoders.ordinary:
                        done = await self._try(upload, job)
                    if done is not None:
                        return done
            async with self._large:
                with self._decoders.waiting.held() as take:
                    take(1)
                    async with self._decoders.large:
                        return await self._decoders.in_own_process(job, upload)
        except UnreadableImageError as error:
            raise UnreadableImageError(upload.name or "an image without a name", error.reason) from error

    async def _try(self, upload: Upload, job: Job) -> Message | None:
        """Decode an ordinary image; None for a large or slow one."""
        try:
            return await self._decoders.in_process(job, upload)
        except WorkerEndedError:
            self._is_slow = True
            return None


def _result(answer: Message) -> Message | None:
    """Return what a job made, or None for a large image; raise its error."""
    status = answer.header.get("status")
    if status == "unreadable":
        raise UnreadableImageError("", str(answer.header["reason"]))
    if status == "lacking":
        raise OSError(answer.header["errno"], os.strerror(answer.header["errno"]))
    if status not in ("done", "large"):
        raise RuntimeError(f"a decoding process failed: {answer.header.get('error')}")
    return answer if status == "done" else None
