"""Who may send requests: host names, origins of pages, and a token."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sotglp.settings import Settings
from sotglp.web.guards import path_below_root, refusal_response
from sotglp.web.limits import RefusalError

OPEN_PATHS = frozenset({"/health", "/ready"})
"""Paths that need no token and no free place, for the probes of operators."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_COSTLY_PATHS = frozenset({"/model/file", "/ready", "/training/report", "/training/onnx"})
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Access(Settings):
    """Who may send requests to a server that binds to ``host``."""

    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = Field((), description="further names in the header Host")
    public_origins: tuple[str, ...] = Field((), description="origins under which a proxy shows the page")
    token: str | None = Field(None, description="what requests have to send")
    root_path: str = Field("", description="path under which a proxy shows the page")

    @field_validator("allowed_hosts")
    @classmethod
    def _name_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host or host_name(host) != host.lower().strip("[]"):
                raise ValueError(f"{host!r} is not a host name without port, such as birds.example.org")
        return tuple(host.lower().strip("[]") for host in hosts)

    @field_validator("public_origins")
    @classmethod
    def _name_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        known = [normalised_origin(origin.removesuffix("/")) for origin in origins]
        for given, origin in zip(origins, known, strict=True):
            if origin is None:
                raise ValueError(f"{given!r} is not an origin, such as https://birds.example.org")
        return tuple(origin for origin in known if origin)

    @field_validator("token")
    @classmethod
    def _send_in_a_header(cls, token: str | None) -> str | None:
        if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
            raise ValueError("the token must have printable ASCII characters without spaces")
        return token

    @field_validator("root_path")
    @classmethod
    def _begin_with_a_slash(cls, path: str) -> str:
        path = path.rstrip("/")
        if path and (
            not path.startswith("/") or path.startswith("//") or not path.isascii() or set(path) & set("?# %")
        ):
            raise ValueError(f"{path!r} is not a path, such as /birds")
        return path

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names in the header Host that are answered; None for all."""
        named = {*self.allowed_hosts, *(urlsplit(origin).hostname or "" for origin in self.public_origins)}
        if not named and not is_loopback(self.host):
            return None
        return frozenset({"localhost", "127.0.0.1", "::1", self.host.lower(), *named})


def is_loopback(host: str) -> bool:
    """Return whether a server that binds to this address or name is reachable from this computer only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """Return the name or address of a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def normalised_origin(origin: str) -> str | None:
    """Return scheme, host and port of an origin in lower case, without a default port; None if it is none."""
    try:
        parts = urlsplit(origin.lower())
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username is not None:
        return None
    if parts.path or parts.query or parts.fragment:
        return None
    return f"{parts.scheme}://{parts.netloc.removesuffix(_DEFAULT_PORTS[parts.scheme])}"


class SameOriginOnly:
    """Middleware that refuses requests which other web sites make a browser send.

    A site can resolve its name to 127.0.0.1 and read answers (DNS rebinding): then Host holds its name, which is
    checked if the server binds to a loopback address or names are given. It can post a form, or show a costly answer as
    an image, without reading the answer: then Origin holds its name, or Sec-Fetch-Site is ``cross-site``.

    Behind a proxy that changes Host, Origin holds the proxy's name. Browsers set Sec-Fetch-Site, pages can't: without
    ``public_origins``, ``same-origin`` is believed.
    """

    # Starlette's TrustedHostMiddleware answers in plain text, and before version 1 it can't parse IPv6 hosts.

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or refuse it."""
        if scope["type"] == "http" and (error := self._refusal(scope, Headers(scope=scope))):
            await refusal_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> RefusalError | None:
        host, hosts = headers.get("host", ""), self._access.hosts
        if hosts is not None and host_name(host) not in hosts:
            return RefusalError(
                400, "this server does not answer to that host name: call it as localhost, or see --allowed-host"
            )
        if scope["method"] in _SAFE_METHODS and path_below_root(scope) not in _COSTLY_PATHS:
            return None
        site = headers.get("sec-fetch-site", "none")
        if site in ("same-origin", "none") and all(
            self._is_own(origin, host, site) for origin in headers.getlist("origin")
        ):
            return None
        return RefusalError(
            403, "cross-origin requests are not allowed: use the page of this server, or see --public-origin"
        )

    def _is_own(self, origin: str, host: str, site: str) -> bool:
        known = normalised_origin(origin)
        if known is None:
            return False
        if known in self._access.public_origins or known.partition("://")[2] == host.lower():
            return True
        return site == "same-origin" and not self._access.public_origins


class TokenRequired:
    """Middleware that refuses requests without the token: as a bearer token, or as a browser's password."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or refuse it."""
        if scope["type"] == "http" and not self._is_allowed(scope):
            answer = refusal_response(
                RefusalError(401, "this server requires its token: send the header Authorization: Bearer TOKEN")
            )
            # With the second one, browsers ask for a name (any) and a password (the token).
            for challenge in ("Bearer", 'Basic realm="sotglp", charset="UTF-8"'):
                answer.headers.append("WWW-Authenticate", challenge)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        if self._access.token is None or path_below_root(scope) in OPEN_PATHS:
            return True
        kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given.strip()).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self._access.token.encode())
