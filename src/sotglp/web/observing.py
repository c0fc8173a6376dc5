"""Request ids, the access log, and metrics in the text format of Prometheus."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sotglp.console.text import printable
from sotglp.web.guards import path_below_root
from sotglp.web.logs import ACCESS_LOG

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONGEST_PATH = 200

_WITH_NAMES = ("/classes/", "/training/classes/", "/training/images/")
"""Beginnings of paths that end in a name or an id."""


class Metrics:
    """Counts and seconds of requests; the labels are few, whatever clients send."""

    def __init__(self, paths: frozenset[str]) -> None:
        self._paths = paths
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self._within = [0] * len(_BOUNDS)
        self._seconds = 0.0

    def add(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        begun = next((begin for begin in _WITH_NAMES if path.startswith(begin)), None)
        known = path if path in self._paths else begun.rstrip("/") if begun else "other"
        method = method if method in ("GET", "HEAD", "POST", "PATCH", "DELETE") else "other"
        self._counts[method, known, status] += 1
        self._seconds += seconds
        for index, bound in enumerate(_BOUNDS):
            self._within[index] += seconds <= bound

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return the metrics; ``gauges`` are further values with their help by name."""
        n = sum(self._counts.values())
        lines = ["# HELP sotglp_requests_total Answered requests.", "# TYPE sotglp_requests_total counter"]
        for (method, path, status), count in sorted(self._counts.items()):
            lines.append(f'sotglp_requests_total{{method="{method}",path="{path}",status="{status}"}} {count}')
        lines.append("# HELP sotglp_request_seconds Seconds until the end of an answer.")
        lines.append("# TYPE sotglp_request_seconds histogram")
        for bound, within in zip((*map(str, _BOUNDS), "+Inf"), (*self._within, n), strict=True):
            lines.append(f'sotglp_request_seconds_bucket{{le="{bound}"}} {within}')
        lines += [f"sotglp_request_seconds_sum {self._seconds:.6f}", f"sotglp_request_seconds_count {n}"]
        for name, (about, value) in gauges.items():
            lines += [f"# HELP sotglp_{name} {about}", f"# TYPE sotglp_{name} gauge", f"sotglp_{name} {value:g}"]
        return "\n".join(lines) + "\n"


class Observed:
    """Middleware that gives each request an id, and notes it in the access log and the metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        begin, status, n_bytes = time.perf_counter(), 0, 0

        async def noted(message: Message) -> None:
            nonlocal status, n_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            n_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            # The answer comes from a layer further out.
            status = status or 500
            raise
        finally:
            seconds = time.perf_counter() - begin
            self._metrics.add(scope["method"], path_below_root(scope), status, seconds)
            client = (scope.get("client") or ("-",))[0]
            ACCESS_LOG.info(
                '%s "%s %s" %d %d bytes %.0f ms id=%s',
                client,
                printable(scope["method"])[:20],
                printable(scope["path"])[:_LONGEST_PATH].replace('"', "%22"),
                status,
                n_bytes,
                1000 * seconds,
                request_id,
            )
