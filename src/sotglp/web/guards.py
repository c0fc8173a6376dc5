"""Middleware: security headers, HEAD, limits on open requests and their time."""

from __future__ import annotations

import asyncio
import math

import anyio
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sotglp.web.limits import RETRY_SECONDS, BusyError, Quota, RefusalError

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def refusal_response(error: RefusalError) -> JSONResponse:
    """Return the answer to a refused request."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, BusyError) else None
    return JSONResponse({"error": str(error)}, error.status, headers)


def path_below_root(scope: Scope) -> str:
    """Return the path of a request without that of the proxy."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class UnderRootPath:
    """Middleware that puts the path under which a proxy shows the page before a request's, unless the proxy left it."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http":
            root, path = self._root_path, scope["path"]
            is_whole = path == root or path.startswith(f"{root}/")
            scope = {**scope, "root_path": root, "path": path if is_whole else root + path}
        await self._app(scope, receive, send)


class SecurityHeaders:
    """Middleware that adds security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to the answer."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                # Images and predictions are private; page files set their own value.
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class HeadAnswers:
    """Middleware that answers HEAD like GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, without_body)


class RequestLimits:
    """Middleware that limits the number of open requests, and the seconds, upload included, until an answer starts.

    Requests for the paths ``without_place`` are not counted.
    """

    def __init__(self, app: ASGIApp, quota: Quota, max_seconds: float, without_place: frozenset[str]) -> None:
        self._app = app
        self._quota = quota
        self._without_place = without_place
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            with self._quota.held() as take:
                take(path_below_root(scope) not in self._without_place)
                await self._in_time(scope, receive, send)
        except BusyError as error:
            await refusal_response(error)(scope, receive, send)

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(self._max_seconds) as timeout:

            async def started(message: Message) -> None:
                # The download of a large model file has no time limit.
                timeout.deadline = math.inf
                await send(message)

            try:
                await self._app(scope, receive, started)
            except asyncio.CancelledError:
                if timeout.cancel_called:
                    raise
                # The server ends, and its time for open requests is over.
                if timeout.deadline < math.inf:
                    raise BusyError("the server ends: try again later") from None
        if timeout.cancelled_caught:
            raise BusyError(
                f"the request took longer than {self._max_seconds:g} seconds: send less at once, or try again later"
            )
