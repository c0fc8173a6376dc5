"""Middleware: security headers, refusal of cross-origin requests, limits on open requests and their time."""

from __future__ import annotations

import ipaddress
import math
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
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

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def refusal_response(error: RefusalError) -> JSONResponse:
    """Return the answer to a refused request."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, BusyError) else None
    return JSONResponse({"error": str(error)}, error.status, headers)


def is_loopback(host: str) -> bool:
    """Return whether a server that binds to this address or name is reachable from this computer only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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


class SameOriginOnly:
    """Middleware that refuses requests which other web sites make a browser send.

    A site can resolve its name to 127.0.0.1 and read answers (DNS rebinding): then Host holds its name, which is
    checked if ``host``, the address that the server binds to, is a loopback address. It can post a form without reading
    the answer: then Origin holds its name, and Sec-Fetch-Site is ``cross-site``.
    """

    # Starlette's TrustedHostMiddleware answers in plain text, and before version 1 it can't parse IPv6 hosts.

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._hosts = frozenset({"localhost", "127.0.0.1", "::1", host.lower()}) if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or refuse it."""
        if scope["type"] == "http" and (error := self._refusal(scope["method"], Headers(scope=scope))):
            await refusal_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> RefusalError | None:
        host = headers.get("host", "")
        if self._hosts is not None and _host_name(host) not in self._hosts:
            return RefusalError(400, "this server accepts requests from its own computer only: call it as localhost")
        if method in _SAFE_METHODS:
            return None
        origin = headers.get("origin")
        cross_origin = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if cross_origin or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return RefusalError(403, "cross-origin requests are not allowed: use the page of this server")
        return None


def _host_name(host: str) -> str:
    """Return the name or address of a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class RequestLimits:
    """Middleware that limits the number of open requests, and the seconds, upload included, until an answer starts."""

    def __init__(self, app: ASGIApp, quota: Quota, max_seconds: float) -> None:
        self._app = app
        self._quota = quota
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            with self._quota.held() as take:
                take(1)
                await self._in_time(scope, receive, send)
        except BusyError as error:
            await refusal_response(error)(scope, receive, send)

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(self._max_seconds) as timeout:

            async def started(message: Message) -> None:
                # The download of a large model file has no time limit.
                timeout.deadline = math.inf
                await send(message)

            await self._app(scope, receive, started)
        if timeout.cancelled_caught:
            raise BusyError(
                f"the request took longer than {self._max_seconds:g} seconds: send less at once, or try again later"
            )
