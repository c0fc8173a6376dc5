"""Images and fields of a multipart request, within limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO

import anyio
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Message

from sotglp.web.limits import MEGABYTE, Limits, Quota, RefusalError, TooLargeError

_MAX_FIELDS = 16
_MAX_FIELD_BYTES = 10_000
_MAX_NAME = 255

_DRAINED_BYTES = 64 * MEGABYTE
_DRAINED_SECONDS = 5.0


@dataclass(frozen=True)
class Upload:
    """An uploaded image; the file is closed at the end of the request."""

    name: str
    file: BinaryIO

    def read(self) -> bytes:
        """Return the content."""
        self.file.seek(0)
        return self.file.read()


@dataclass(frozen=True)
class Form:
    """Images of a request, in order, and its text fields by name."""

    uploads: list[Upload]
    texts: dict[str, str]


@asynccontextmanager
async def received(request: Request, limits: Limits, quota: Quota, files: str) -> AsyncIterator[Form]:
    """Receive a multipart request with images in the field ``files``; they are deleted at the end of the context.

    Starlette stores files above 1 MB in temporary files. The limit on the whole request, and the quota of bytes of all
    open requests, hold while it streams in, the limit on one image once it has arrived.

    Raises
    ------
    RefusalError
        415 if the body is not multipart, 400 if it is malformed, 413 if it is too large, 422 if it has no images, 503
        if the quota is used up.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    with quota.held() as take:
        body = _Body(request, limits, take)
        try:
            if content_type != "multipart/form-data":
                raise RefusalError(415, f"the body must be multipart/form-data with a field {files}")
            form = await _parsed(Request(request.scope, body.receive), limits, body)
        except RefusalError:
            await body.drain()
            raise
        try:
            yield _checked(form, limits, files)
        finally:
            await form.close()


class _Body:
    """The body of a request: checks its size against the limits, and stores its last bytes."""

    def __init__(self, request: Request, limits: Limits, take: Callable[[int], None]) -> None:
        self.tail = b""
        self.refusal: RefusalError | None = None
        self._receive = request.receive
        self._max_bytes = limits.max_request_bytes
        self._take = take
        self._n_bytes = 0
        self._ended = False

    async def receive(self) -> Message:
        """Return the next message of the request."""
        message = await self._next()
        chunk = message.get("body", b"")
        self._n_bytes += len(chunk)
        try:
            if self._n_bytes > self._max_bytes:
                allowed = _megabytes(self._max_bytes)
                raise TooLargeError(f"the request is larger than the allowed {allowed}: send fewer images")
            self._take(len(chunk))
        except RefusalError as error:
            self.refusal = error
            # Before version 1, Starlette's parser closes its files after this error only.
            raise MultiPartException(str(error)) from error
        self.tail = (self.tail + chunk)[-200:]
        return message

    async def drain(self) -> None:
        """Read the rest of a refused request, within limits: a client that is still sending does not see the answer."""
        left = _DRAINED_BYTES
        with anyio.move_on_after(_DRAINED_SECONDS):
            while left > 0 and not self._ended:
                left -= len((await self._next()).get("body", b""))

    async def _next(self) -> Message:
        message = await self._receive()
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message


async def _parsed(request: Request, limits: Limits, body: _Body) -> FormData:
    try:
        form = await request.form(max_files=limits.max_images, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES)
    except FormParserError as error:
        # Before version 1, Starlette passes errors of its parser on.
        raise _malformed() from error
    except (HTTPException, MultiPartException) as error:
        if body.refusal:
            raise body.refusal from error
        reason = error.detail if isinstance(error, HTTPException) else error.message
        if reason.startswith("Too many files"):
            raise TooLargeError(
                f"the request has more than the allowed {limits.max_images} images: send fewer"
            ) from error
        if reason.startswith(("Too many fields", "Part exceeded")):
            raise TooLargeError(
                f"the request has more than {_MAX_FIELDS} fields or a field of more than {_MAX_FIELD_BYTES} bytes"
            ) from error
        raise _malformed() from error
    # The parser accepts a body that ends in the middle of a part, and would drop that part.
    if not body.tail.rstrip().endswith(b"--"):
        await form.close()
        raise _malformed()
    return form


def _checked(form: FormData, limits: Limits, files: str) -> Form:
    uploads = [
        Upload((part.filename or "")[:_MAX_NAME], part.file)
        for name, part in form.multi_items()
        if name == files and isinstance(part, UploadFile)
    ]
    for name, part in form.multi_items():
        if name == files and isinstance(part, UploadFile) and (part.size or 0) > limits.max_image_bytes:
            raise TooLargeError(
                f"{part.filename} is larger than the allowed {_megabytes(limits.max_image_bytes)}: reduce it"
            )
    if not uploads:
        raise RefusalError(422, f"the request has no image: send at least one file in the field {files}")
    return Form(uploads, {name: part for name, part in form.multi_items() if isinstance(part, str)})


def _malformed() -> RefusalError:
    return RefusalError(400, "the body is not a complete multipart/form-data: send it again")


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / MEGABYTE:g} MB"
