"""The served model as a file: written once for each class change, and streamed to a limited number of clients."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sotglp.errors import SotglpError
from sotglp.web.limits import NO_SPACE, BusyError, Quota, RefusalError
from sotglp.web.live_model import LiveModel, ServedModel

MAX_DOWNLOADS = 8
_CHUNK = 2**18


class ModelFile:
    """A temporary copy of the current model; :meth:`close` removes it."""

    def __init__(self, live: LiveModel) -> None:
        self._live = live
        self._writing = asyncio.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._written: ServedModel | None = None
        self._downloads = Quota(MAX_DOWNLOADS, "downloads")

    async def response(self) -> Response:
        """Return the answer that streams the file; BusyError if too many clients download it.

        Raises
        ------
        RefusalError
            507 or 503 if the file can't be written.
        """
        with ExitStack() as held:
            held.enter_context(self._downloads.held())(1)
            async with self._writing:
                file = await asyncio.to_thread(self._opened, self._live.current)
            held.callback(file.close)
            return FileStream(file, self._live.name, held.pop_all())

    def close(self) -> None:
        """Remove the file."""
        if self._folder:
            self._folder.cleanup()

    def _opened(self, served: ServedModel) -> BinaryIO:
        # Some systems remove files from the temporary folder after days.
        if self._written is not served or self._folder is None or not self._path.exists():
            self.close()
            self._written = None
            self._folder = tempfile.TemporaryDirectory(prefix="sotglp-", ignore_cleanup_errors=True)
            try:
                served.save(self._path)
            except SotglpError as error:
                # Its message names a path of the server.
                if isinstance(error.__cause__, OSError):
                    no_space = error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
                    raise (
                        RefusalError(507, NO_SPACE) if no_space else BusyError("the server can't write its model file")
                    ) from error
                raise
            self._written = served
        return self._path.open("rb")

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name, "model.safetensors")


class FileStream(Response):
    """Streams an open file, which it closes whatever happens."""

    def __init__(
        self, file: BinaryIO, name: str, held: ExitStack, media_type: str = "application/octet-stream"
    ) -> None:
        super().__init__(media_type=media_type)
        self._file, self._held = file, held
        self.headers["Content-Length"] = str(os.fstat(file.fileno()).st_size)
        plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
        self.headers["Content-Disposition"] = f'attachment; filename="{plain}"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        with self._held:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while chunk := await asyncio.to_thread(self._file.read, _CHUNK):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
