"""Connections of the server: their number, and deadlines for clients that send or read too slowly."""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from socket import socket
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sotglp.errors import SotglpError

if sys.platform != "win32":
    import resource

MAX_CONNECTIONS = 512
"""Open connections; a further one closes the one that has been idle longest."""

HEAD_SECONDS = 10.0
"""Seconds until the head of a request is complete, from the first byte or the opening of the connection."""

STALL_SECONDS = 15.0
"""Seconds in which a client sends or reads at least ``_STEP_BYTES`` of a body or an answer."""

_STEP_BYTES = 2**14

_TICKS_A_SECOND = 10

# Descriptors for files, processes, and what the libraries open.
_OTHER_DESCRIPTORS = 128

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    b'{"error":"the server has too many connections: try again in a moment"}'
)


_INVALID = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    b'{"error":"this is no valid HTTP request: see /openapi.json"}'
)


def allowed_connections() -> int:
    """Return how many connections the limit of open files admits, after raising it as far as it is allowed.

    Raises
    ------
    SotglpError
        If it admits none.
    """
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # As many again for uploads, which are files if they are large.
    n = MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, (soft - _OTHER_DESCRIPTORS) // 2)
    if n < 1:
        raise SotglpError(f"the limit of {soft} open files is too low to serve: raise it with ulimit -n 1024")
    return n


class Connection(H11Protocol):
    """uvicorn's connection, with deadlines, which :meth:`check` enforces."""

    def __init__(self, *arguments: Any, max_connections: int = MAX_CONNECTIONS, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._max_connections = max_connections
        # Since when the head of a request has been incomplete.
        self._idle_since: float | None = None
        self._n_moved = 0
        # Time of the last progress, and the bytes moved and still to be sent then.
        self._progress = (0.0, 0, 0)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, if necessary in place of an idle one."""
        if len(self.connections) >= self._max_connections and not self._close_most_idle():
            transport.write(_FULL)
            transport.close()
            # The rest of the protocol expects a connection.
            self.transport = transport
            return
        self._idle_since = time.monotonic()
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self in self.connections:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        if self not in self.connections:
            return
        self._n_moved += len(data)
        if self._idle_since is None and not self._is_answering:
            self._idle_since = time.monotonic()
        super().data_received(data)
        if self._is_answering:
            self._idle_since = None

    def eof_received(self) -> None:
        """Let uvicorn close the connection."""
        if self in self.connections:
            super().eof_received()

    def resume_writing(self) -> None:
        """Note that the client has read most of what was sent."""
        self._n_moved += _STEP_BYTES
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless an answer has begun; then uvicorn would raise an error."""
        if not (self._is_answering and self.cycle.response_started):
            self.transport.write(_INVALID)
        self.transport.close()

    def check(self, now: float) -> None:
        """Close the connection if a deadline is over."""
        unsent = self.transport.get_write_buffer_size()
        since, n_moved, n_unsent = self._progress
        is_sending = self._is_answering and self.cycle.more_body and not self.flow.read_paused
        if not (is_sending or unsent):
            self._progress = (now, self._n_moved, 0)
        elif not since or self._n_moved - n_moved >= _STEP_BYTES or abs(unsent - n_unsent) >= _STEP_BYTES:
            self._progress = (now, self._n_moved, unsent)
        elif now - since > STALL_SECONDS:
            self.transport.abort()
        if self._idle_since is not None and not self._is_answering and now - self._idle_since > HEAD_SECONDS:
            self.transport.abort()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_most_idle(self) -> bool:
        idle = [one for one in self.connections if isinstance(one, Connection) and not one._is_answering]
        if not idle:
            return False
        longest = min(idle, key=lambda one: one._idle_since or 0.0)
        longest.transport.abort()
        # The system tells of the end later.
        self.connections.discard(longest)
        return True


def connection_factory(max_connections: int) -> type[asyncio.Protocol]:
    """Return what makes the connections of a server that has at most ``max_connections``."""
    return cast("type[asyncio.Protocol]", partial(Connection, max_connections=max_connections))


class DeadlineServer(uvicorn.Server):
    """uvicorn's server, which checks the deadlines of its connections once a second."""

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop."""
        if counter % _TICKS_A_SECOND == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check(time.monotonic())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Answer open requests, and close the connections of clients that neither send nor read."""
        if self.config.timeout_graceful_shutdown is not None:
            # Before uvicorn cancels requests, each of which it logs as an error.
            seconds = max(self.config.timeout_graceful_shutdown - 1, 0)
            asyncio.get_running_loop().call_later(seconds, self._close_all)
        await super().shutdown(sockets)
        self._close_all()

    def _close_all(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
