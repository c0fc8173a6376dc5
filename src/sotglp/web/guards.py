"""What every request passes before it is looked at, and every answer on its way out."""

from __future__ import annotations

import ipaddress
import math
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sotglp.web.limits import Quota
from sotglp.web.refusal import RETRY_SECONDS, BusyError, RefusalError

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
    """The answer that tells why a request was refused."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, BusyError) else None
    return JSONResponse({"error": str(error)}, error.status, headers)


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches a server that is bound to this address or name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class SafeHeaders:
    """Tells browsers to load nothing from elsewhere, to show the page in no frame, and to take types as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and the answer back, with these headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                # Pictures and what was found in them are nobody else's; the page may have changed with the package.
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class OwnRequestsOnly:
    """Refuses what other web sites make a browser send here.

    A site can have its own name resolved to 127.0.0.1 and so read answers (DNS rebinding): its name then stands in
    Host. It can also send a form here without reading the answer: its name then stands in Origin, and browsers say
    ``cross-site`` in Sec-Fetch-Site.

    Parameters
    ----------
    app : ASGI application
        What comes after.
    host : str
        Address that the server is bound to; any Host will do unless it is a loopback address.
    """

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
            return RefusalError(400, "this server is for programs on its own computer: call it by localhost")
        if method in _SAFE_METHODS:
            return None
        origin = headers.get("origin")
        elsewhere = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if elsewhere or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return RefusalError(403, "the request comes from another web site, and only the page of this one may")
        return None


def _host_name(host: str) -> str:
    """Name or address of a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class Bounded:
    """Refuses requests beyond a number, and ends those that take too long, upload included.

    Parameters
    ----------
    app : ASGI application
        What comes after.
    places : Places
        One for each request that may be open.
    max_seconds : float
        Seconds until an answer has to begin.
    """

    def __init__(self, app: ASGIApp, places: Quota, max_seconds: float) -> None:
        self._app = app
        self._places = places
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            with self._places.held() as take:
                take(1)
                await self._in_time(scope, receive, send)
        except BusyError as error:
            await refusal_response(error)(scope, receive, send)

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(self._max_seconds) as time_left:

            async def begun(message: Message) -> None:
                # A large model file may take as long as it wants to be downloaded.
                time_left.deadline = math.inf
                await send(message)

            await self._app(scope, receive, begun)
        if time_left.cancelled_caught:
            raise BusyError(
                f"the request took longer than {self._max_seconds:g} seconds: send less at once, or try again later"
            )
