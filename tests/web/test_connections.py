"""Deadlines and the number of connections, with a small application in place of the server's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from sotglp.web import connections
from sotglp.web.connections import DeadlineServer, allowed_connections, connection_factory
from sotglp.web.serving import bound
from support.web_server import server_process

SECONDS = 30.0
"""Far beyond the deadlines, so that a slow computer fails no test."""

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1"
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
LARGE = 2**26


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, begins its answer, waits at /wait, and answers with many bytes at /large."""
    if scope["path"] == "/early":
        await send({"type": "http.response.start", "status": 200, "headers": []})
    message: dict[str, Any] = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
    if scope["path"] != "/early":
        await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/wait":
        await asyncio.sleep(1.5)
    if scope["path"] == "/large":
        for _ in range(LARGE // 2**20):
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
    await send({"type": "http.response.body", "body": b"done"})


@asynccontextmanager
async def listening(max_connections: int = 100) -> AsyncIterator[int]:
    """The port of a server of ``application``."""
    http = connection_factory(max_connections)
    options = {"log_config": None, "lifespan": "off", "ws": "none", "timeout_graceful_shutdown": 1}
    config = uvicorn.Config(application, http=http, **options)
    server = DeadlineServer(config)
    with bound("127.0.0.1", 0) as listener:
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def opened(port: int, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What a connection sends until its end."""
    content = b""
    try:
        while chunk := await asyncio.wait_for(reader.read(2**16), SECONDS):
            content += chunk
    except ConnectionError:
        pass
    return content


async def status(port: int, path: str = "/") -> int:
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        return (await client.get(f"http://127.0.0.1:{port}{path}")).status_code


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.3)


def run(check: Callable[[int], Awaitable[None]], **options: Any) -> None:
    async def within() -> None:
        async with listening(**options) as port:
            await check(port)

    asyncio.run(within())


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        HEAD,
        HEAD + b"X: ",
        HEAD + b"\r\n" + HEAD,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1",
    ],
)
def test_a_connection_that_sends_no_whole_request_is_closed(sent: bytes) -> None:
    async def check(port: int) -> None:
        reader, writer = await opened(port, sent)
        assert (await everything(reader)).count(b"200 OK") == sent.count(b"\r\n\r\nGET")
        writer.close()

    run(check)


CHUNKED = b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\r\n\r\n", HEAD + b"Host: b\r\n\r\n", b"POST /" + CHUNKED + b"zz\r\n"])
def test_what_is_no_http_is_refused(sent: bytes) -> None:
    async def check(port: int) -> None:
        reader, writer = await opened(port, sent)
        answer = await everything(reader)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b'{"error":' in answer
        writer.close()

    run(check)


def test_a_damaged_body_after_the_begin_of_the_answer_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def check(port: int) -> None:
        reader, writer = await opened(port, b"POST /early" + CHUNKED)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.write(b"zz\r\n")
        assert b"400" not in await everything(reader)
        writer.close()

    run(check)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.usefixtures("short")
def test_a_client_that_does_not_read_is_closed() -> None:
    async def check(port: int) -> None:
        reader, writer = await opened(port, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readexactly(10)
        writer.transport.pause_reading()
        await asyncio.sleep(2.5)
        writer.transport.resume_reading()
        assert len(await everything(reader)) < LARGE
        writer.close()

    run(check)


@pytest.mark.usefixtures("short")
def test_an_answer_that_takes_longer_than_the_deadlines_is_sent() -> None:
    async def check(port: int) -> None:
        assert await status(port, "/wait") == 200
        assert await status(port, "/large") == 200

    run(check)


def test_a_further_connection_takes_the_place_of_the_one_that_has_been_idle_longest() -> None:
    async def check(port: int) -> None:
        held = [await opened(port, HEAD) for _ in range(3)]
        assert await status(port) == 200
        assert await everything(held[0][0]) == b""
        held[2][1].write(b"\r\n")
        assert (await held[2][0].readline()).startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.close()

    run(check, max_connections=3)


def test_without_an_idle_connection_a_further_one_is_refused() -> None:
    async def check(port: int) -> None:
        held = [await opened(port, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(2)]
        for reader, _ in held:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        further, closed = await opened(port)
        answer = await everything(further)
        closed.close()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'{"error":"the server has too many connections' in answer
        for reader, writer in held:
            assert b"done" in await reader.readuntil(b"done")
            writer.close()

    run(check, max_connections=2)


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no limits of processes")
def test_the_limit_of_open_files_bounds_connections() -> None:
    look = (
        "import resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_NOFILE, (n, n));"
        "from sotglp.web.connections import allowed_connections; print(allowed_connections())"
    )
    found = {}
    for n in (256, 4096, 128):
        done = subprocess.run([sys.executable, "-c", look, str(n)], capture_output=True, text=True)
        found[n] = done.stdout.strip() or done.stderr.strip().splitlines()[-1].partition(":")[0]
    assert found == {256: "64", 4096: "512", 128: "sotglp.errors.SotglpError"}
    assert allowed_connections() > 0


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no limits of processes")
def test_a_server_with_few_descriptors_answers_beside_many_idle_connections(model: Path) -> None:
    async def check(port: int) -> None:
        held = [await opened(port, HEAD) for _ in range(300)]
        assert await status(port, "/health") == 200
        for _, writer in held:
            writer.close()

    with server_process(model, descriptors=256) as (_, address):
        asyncio.run(check(int(address.rpartition(":")[2])))


def test_clients_that_do_not_read_or_send_do_not_delay_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def check(port: int) -> None:
        for sent in (b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n", POST, HEAD):
            reader, writer = await opened(port, sent)
            writer.transport.pause_reading()
            held.append((reader, writer))
        await asyncio.sleep(0.1)

    held: list[Any] = []
    run(check)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
