"""Images and fields of a multipart request, bounded while they stream in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from sotglp.web.limits import MEGABYTE, Limits, Quota
from sotglp.web.refusal import RefusalError, TooLargeError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_IN_MEMORY = MEGABYTE
"""Bytes of an image that stay in memory; a larger one goes to a temporary file, which the system deletes."""

_MAX_TEXT = 10_000
"""Bytes of all fields that are no images."""

_MAX_OTHER_PARTS = 16

_LONGEST_NAME = 255

_DRAINED_BYTES = 64 * MEGABYTE
_DRAINED_SECONDS = 5.0
"""How much of a refused request is read on, and how long."""


@dataclass(frozen=True)
class Upload:
    """An image as it was sent; the file is closed at the end of the request."""

    name: str
    file: SpooledTemporaryFile[bytes]

    def read(self) -> bytes:
        """The content."""
        self.file.seek(0)
        return self.file.read()


@dataclass
class Form:
    """What a request holds.

    Attributes
    ----------
    uploads : list of Upload
        Files of the field that was asked for, in their order.
    texts : dict
        Other fields.
    """

    uploads: list[Upload] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def received(request: Request, limits: Limits, space: Quota, files: str) -> AsyncIterator[Form]:
    """Receive a multipart request; its files are gone at the end of the context.

    Parameters
    ----------
    request : Request
        Its body has not been read.
    limits : Limits
        Bounds on it, which hold while it streams in: what goes beyond is never kept.
    space : Places
        Bytes that all requests may have.
    files : str
        Name of the field with the images; those of other fields are left out.

    Raises
    ------
    RefusalError
        415 if it is not multipart, 400 if it is broken, 413 if it is too large, 422 if it has no images, 503 if there
        is no space.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    stream = request.stream()
    with ExitStack() as opened, space.held() as take:
        try:
            if content_type != b"multipart/form-data":
                raise RefusalError(415, f"the body must be multipart/form-data with a field {files}")
            if not boundary:
                raise RefusalError(400, "the header Content-Type names no boundary between the parts of the body")
            form = await _parsed(_bounded(stream, limits, take), _Parts(limits, files, opened), boundary)
        except RefusalError:
            await _drain(stream)
            raise
        if not form.uploads:
            raise RefusalError(422, f"there is no image: send at least one file in the field {files}")
        yield form


async def _bounded(stream: AsyncIterator[bytes], limits: Limits, take: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The stream, as long as it keeps within the bounds."""
    n_bytes = 0
    async for chunk in stream:
        n_bytes += len(chunk)
        if n_bytes > limits.max_request_bytes:
            raise TooLargeError(
                f"the request is larger than the {_megabytes(limits.max_request_bytes)} that one may have: send fewer "
                "images at once"
            )
        take(len(chunk))
        yield chunk


async def _parsed(stream: AsyncIterator[bytes], parts: _Parts, boundary: bytes) -> Form:
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        async for chunk in stream:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise _broken() from error
    if not parts.is_whole:
        raise _broken()
    return parts.form


def _broken() -> RefusalError:
    return RefusalError(400, "the body is no whole multipart/form-data: send it anew")


async def _drain(stream: AsyncIterator[bytes]) -> None:
    """Read and forget the rest, within bounds: a client that is still sending would not see the answer otherwise."""
    left = _DRAINED_BYTES
    with anyio.move_on_after(_DRAINED_SECONDS):
        async for chunk in stream:
            left -= len(chunk)
            if left < 0:
                return


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / MEGABYTE:g} MB"


class _Parts:
    """Collects the parts as the parser finds them."""

    def __init__(self, limits: Limits, files: str, opened: ExitStack) -> None:
        self.form = Form()
        self.is_whole = False
        self._limits = limits
        self._files = files
        self._opened = opened
        self._n_other = 0
        self._n_text = 0

    def callbacks(self) -> MultipartCallbacks:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._name, self._value, self._disposition = b"", b"", b""
        self._n_bytes = 0
        self._upload: Upload | None = None
        self._field = ""
        self._text = bytearray()
        self._is_file = False

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _broken()
        self._field = options[b"name"].decode("utf-8", "replace")
        if b"filename" not in options or self._field != self._files:
            self._n_other += 1
            if self._n_other > _MAX_OTHER_PARTS:
                raise TooLargeError(f"the request has more than {_MAX_OTHER_PARTS} fields beside its images")
            self._is_file = b"filename" in options
            return
        if len(self.form.uploads) == self._limits.max_images:
            raise TooLargeError(
                f"the request has more than the {self._limits.max_images} images that one may have: send fewer at once"
            )
        name = options[b"filename"].decode("utf-8", "replace")[:_LONGEST_NAME]
        file = self._opened.enter_context(SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - the stack closes it
        self._upload = Upload(name, file)
        self.form.uploads.append(self._upload)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._upload is None:
            self._n_text += end - start
            if self._n_text > _MAX_TEXT:
                raise TooLargeError(f"the fields beside the images are longer than {_MAX_TEXT} bytes")
            self._text += data[start:end]
            return
        self._n_bytes += end - start
        if self._n_bytes > self._limits.max_image_bytes:
            raise TooLargeError(
                f"{self._upload.name} is larger than the {_megabytes(self._limits.max_image_bytes)} that an image may "
                "have: make it smaller"
            )
        self._upload.file.write(data[start:end])

    def _part_end(self) -> None:
        if self._upload is None and not self._is_file:
            self.form.texts[self._field] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self.is_whole = True
