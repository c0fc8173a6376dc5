"""What attackers and broken clients send to the server, for the soak: each returns the statuses of its answers."""

from __future__ import annotations

import asyncio
import io
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from support.costly_images import jpeg_of_scans, png_of_zeros

SECONDS = 30.0
"""Longest time of one hostile request; the server's own deadlines are shorter."""

Hostile = Callable[["Target", random.Random], Awaitable[list[int]]]


class Target:
    """The server, and files to send to it."""

    def __init__(self, address: str, photo: bytes) -> None:
        self.host, _, port = address.removeprefix("http://").rpartition(":")
        self.port = int(port)
        self.photo = photo
        webp = io.BytesIO()
        Image.new("RGB", (13000, 13000)).save(webp, "WEBP", quality=1, method=0)
        self.bombs = {
            "scans.jpg": jpeg_of_scans(500, 500, 5000),
            "pixels.png": png_of_zeros(13000, 13000),
            "pixels.webp": webp.getvalue(),
            "too_many.png": png_of_zeros(20000, 20000),
        }

    async def opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a new connection."""
        return await asyncio.open_connection(self.host, self.port)

    def head(self, method: str, path: str, length: int | None = None, boundary: str = "b") -> bytes:
        """Return the head of a request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", "Connection: close"]
        if length is not None:
            lines += [f"Content-Type: multipart/form-data; boundary={boundary}", f"Content-Length: {length}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def ask(self, content: bytes) -> list[int]:
        """Send bytes; return the status of the answer, and nothing if the server closed the connection."""
        reader, writer = await self.opened()
        try:
            writer.write(content)
            await writer.drain()
            line = await asyncio.wait_for(reader.readline(), 2 * SECONDS)
            await asyncio.wait_for(reader.read(), SECONDS)
            return [int(line.split()[1])] if line else []
        except (ConnectionError, IndexError, ValueError):
            return []
        finally:
            writer.close()


def form(*images: tuple[str, bytes], field: str = "images") -> bytes:
    """Return a multipart body."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in images
    ]
    return b"".join(parts) + b"--b--\r\n"


async def bomb(target: Target, rng: random.Random) -> list[int]:
    """Send a small file that costs a decoder much time or memory."""
    name = rng.choice(list(target.bombs))
    body = form((name, target.bombs[name]))
    return await target.ask(target.head("POST", "/predict", len(body)) + body)


async def broken_body(target: Target, rng: random.Random) -> list[int]:
    """Send a body that is cut, has damaged bytes, another boundary or another type, or is no image."""
    body = form(("a.jpg", target.photo))
    kind = rng.randrange(4)
    if kind == 0:
        body = body[: rng.randrange(len(body))]
    elif kind == 1:
        damaged = bytearray(body)
        for _ in range(50):
            damaged[rng.randrange(len(body))] = rng.randrange(256)
        body = bytes(damaged)
    elif kind == 2:
        body = form(("a.jpg", rng.randbytes(10_000)))
    head = target.head("POST", rng.choice(["/predict", "/explain", "/classes"]), len(body), "bc"[kind == 3])
    return await target.ask(head + body)


async def slow_reader(target: Target, rng: random.Random) -> list[int]:
    """Ask for the model file many times, so that the answers fill all buffers, and don't read them."""
    _, writer = await target.opened()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(200 * target.head("GET", "/model/file").replace(b"Connection: close\r\n", b""))
    await asyncio.sleep(rng.uniform(5, SECONDS))
    writer.transport.abort()
    return []


async def slow_sender(target: Target, rng: random.Random) -> list[int]:
    """Send a head or a body byte by byte."""
    body = form(("a.jpg", target.photo))
    content = target.head("POST", "/predict", len(body)) + body
    _, writer = await target.opened()
    n_sent = rng.choice([5, 60, 400])
    writer.write(content[:n_sent])
    try:
        for second in range(int(rng.uniform(5, SECONDS))):
            writer.write(content[n_sent + second : n_sent + second + 1])
            await writer.drain()
            await asyncio.sleep(1)
    except ConnectionError:
        pass
    writer.transport.abort()
    return []


async def cancelled(target: Target, rng: random.Random) -> list[int]:
    """Send a request, or half of it, and close the connection."""
    body = form(*[("a.jpg", target.photo)] * rng.choice([1, 20]))
    content = target.head("POST", rng.choice(["/predict", "/explain"]), len(body)) + body
    _, writer = await target.opened()
    writer.write(content[: rng.choice([len(content) // 2, len(content)])])
    await asyncio.sleep(rng.uniform(0, 0.3))
    writer.transport.abort()
    return []


async def odd_request(target: Target, rng: random.Random) -> list[int]:
    """Send what is no request, or one of another site, or an upload that is too large."""
    kind = rng.randrange(4)
    if kind == 0:
        return await target.ask(rng.randbytes(200) + b"\r\n\r\n")
    if kind == 1:
        return await target.ask(b"GET /model/file HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    if kind == 2:
        return await target.ask(target.head("GET", "/model")[:-2] + b"X: " + b"x" * 2**17 + b"\r\n\r\n")
    body = form(("a.jpg", bytes(21 * 10**6)))
    return await target.ask(target.head("POST", "/predict", len(body)) + body)


HOSTILE: dict[str, Hostile] = {
    "bomb": bomb,
    "broken body": broken_body,
    "slow reader": slow_reader,
    "slow sender": slow_sender,
    "cancelled": cancelled,
    "odd request": odd_request,
}
