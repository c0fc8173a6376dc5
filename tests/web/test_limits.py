from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import UploadFile
from starlette.requests import Request

from sotglp import SotglpError
from sotglp.settings import checked
from sotglp.web.decoding import Worker
from sotglp.web.guards import RequestLimits
from sotglp.web.limits import BusyError, Limits, Quota, RefusalError
from sotglp.web.messages import Message
from sotglp.web.uploads import received
from support.web_server import client, files, png

SMALL = Limits(
    max_image_bytes=20_000,
    max_images=3,
    max_request_bytes=50_000,
    max_queued=4,
    max_requests=3,
    max_received_bytes=70_000,
)
IMAGE = png()


@pytest.fixture(scope="module")
def small(model: Path) -> Iterator[TestClient]:
    with client(model, SMALL) as own:
        yield own


def post(own: TestClient, *contents: bytes | tuple[str, bytes], **options: Any) -> tuple[int, str]:
    """Status and error."""
    answer = own.post("/predict", files=files(*contents), **options)
    return answer.status_code, answer.json().get("error", "")


def test_what_is_too_large_is_refused(small: TestClient) -> None:
    assert post(small, IMAGE, IMAGE, IMAGE)[0] == 200
    status, error = post(small, IMAGE, ("leaf.jpg", b"x" * 20_001))
    assert (status, error) == (413, "leaf.jpg is larger than the allowed 0.02 MB: reduce it")
    assert post(small, ("leaf.jpg", b"x" * 20_000))[0] == 422
    status, error = post(small, IMAGE, IMAGE, IMAGE, IMAGE)
    assert (status, "more than the allowed 3 images" in error) == (413, True)
    status, error = post(small, b"x" * 19_999, b"x" * 19_999, b"x" * 19_999)
    assert (status, "larger than the allowed 0.05 MB" in error) == (413, True)
    for data in ({"a": "x" * 10_001}, {f"a{index}": "x" for index in range(17)}):
        status, error = post(small, IMAGE, data=data)
        assert (status, "fields" in error) == (413, True)


def test_a_malformed_form_is_refused(small: TestClient) -> None:
    def status(content: bytes, content_type: str = "multipart/form-data; boundary=b") -> int:
        answer = small.post("/predict", content=content, headers={"Content-Type": content_type})
        assert list(answer.json()) == ["error"]
        return answer.status_code

    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n' + IMAGE
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    assert small.post("/predict", content=part + b"\r\n--b--\r\n", headers=form).status_code == 200
    assert status(part) == 400
    assert status(b"") == 400
    assert status(b"nothing like it") == 400
    assert status(part, "multipart/form-data") == 400
    assert status(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n") == 400
    assert status(b"--b--\r\n") == 422
    assert status(part.replace(b'name="images"', b'name="others"') + b"\r\n--b--\r\n") == 422
    assert status(b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\nx\r\n--b--\r\n') == 422
    assert status(b"{}", "application/json") == 415
    assert small.post("/predict").status_code == 415


def request_of(chunks: list[bytes], boundary: str = "b") -> tuple[Request, list[bytes]]:
    """A request whose body comes in chunks, and those that are still to come."""
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    content_type = f"multipart/form-data; boundary={boundary}".encode()
    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", content_type)]}, receive), left


@given(
    names=st.lists(st.text(st.characters(codec="utf-8", exclude_characters='\r\n"\\\0'), min_size=1), max_size=4),
    contents=st.lists(st.binary(max_size=300), min_size=4, max_size=4),
    cut=st.integers(1, 60),
)
@settings(deadline=None)
def test_uploads_come_as_they_were_sent_however_they_are_cut(names: list[str], contents: list[bytes], cut: int) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nfog\r\n'
    contents = [content.replace(b"\r\n--b", b"") for content in contents]
    for name, content in zip(names, contents, strict=False):
        body += b'--b\r\nContent-Disposition: form-data; name="images"; filename="' + name.encode() + b'"\r\n\r\n'
        body += content + b"\r\n"
    body += b"--b--\r\n"
    request, _ = request_of([body[start : start + cut] for start in range(0, len(body), cut)])

    async def run() -> None:
        async with received(request, Limits(), Quota(10**6, "bytes"), "images") as form:
            assert form.texts == {"name": "fog"}
            assert [upload.read() for upload in form.uploads] == contents[: len(names)]
            assert [upload.name for upload in form.uploads] == [name[:255] for name in names]
        assert all(upload.file.closed for upload in form.uploads)

    if names:
        asyncio.run(run())
    else:
        with pytest.raises(RefusalError, match="no image"):
            asyncio.run(run())


def test_an_endless_image_stops_at_the_limit_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[UploadFile] = []
    write = UploadFile.write

    async def note(upload: UploadFile, data: bytes) -> None:
        stored.append(upload)
        await write(upload, data)

    monkeypatch.setattr(UploadFile, "write", note)
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    chunks = itertools.chain([head], itertools.repeat(b"x" * 10**6))
    n_read = 0

    async def receive() -> dict[str, Any]:
        nonlocal n_read
        n_read += 1
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    request, _ = request_of([])
    quota = Quota(10**9, "bytes")

    async def run() -> None:
        with pytest.raises(RefusalError, match="larger than the allowed 5 MB") as refused:
            async with received(Request(request.scope, receive), Limits(max_request_bytes=5 * 10**6), quota, "images"):
                pass
        assert refused.value.status == 413

    asyncio.run(run())
    assert stored
    assert all(upload.file.closed for upload in stored)
    assert n_read < 80  # what is read on after the refusal, so that the client sees the answer, has a limit too
    assert quota.n_taken == 0


def test_a_quota_is_shared_and_released() -> None:
    quota = Quota(3, "images")
    with quota.held() as take:
        take(2)
        with quota.held() as other:
            other(1)
            with pytest.raises(BusyError, match="too many images"):
                take(1)
        take(1)
        assert quota.n_taken == 3
    assert quota.n_taken == 0


def test_limits_that_cannot_be_kept_together() -> None:
    with pytest.raises(SotglpError, match="max_queued is below max_images"):
        checked(Limits, {"max_images": 300})
    with pytest.raises(SotglpError, match="max_received_bytes is below max_request_bytes"):
        checked(Limits, {"max_request_bytes": 10**12})
    with pytest.raises(SotglpError, match="max_seconds = 0"):
        checked(Limits, {"max_seconds": 0})


class Gate:
    """Delays the decoding of images."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        ask = Worker.ask

        def held(*arguments: Any) -> Message:
            assert self.open.wait(30)
            return ask(*arguments)

        patch.setattr(Worker, "ask", held)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_quota_refuses_with_retry_after(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with client(model, SMALL) as own, ThreadPoolExecutor(3) as pool:
        service = own.app.state.service
        full = pool.submit(own.post, "/predict", files=files(IMAGE, IMAGE, IMAGE))
        wait_for(lambda: service.images.n_taken == 3)
        for _ in range(2):
            busy = own.post("/predict", files=files(IMAGE, IMAGE))
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
            assert "too many images" in busy.json()["error"]
        last = pool.submit(own.post, "/explain", files=files(IMAGE, field="image"))
        wait_for(lambda: service.images.n_taken == 4)
        assert own.post("/classes", files=files(IMAGE), data={"name": "fog"}).status_code == 503
        third = pool.submit(own.post, "/predict", files=files(b"x" * 19_000))
        assert third.result().status_code == 503
        gate.open.set()
        assert (full.result().status_code, last.result().status_code) == (200, 200)
        assert (service.images.n_taken, service.requests.n_taken, service.received_bytes.n_taken) == (0, 0, 0)
        assert own.post("/predict", files=files(IMAGE, IMAGE, IMAGE)).status_code == 200


def test_too_many_requests_or_bytes_at_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    limits = SMALL.model_copy(update={"max_requests": 2})
    with client(model, limits) as own, ThreadPoolExecutor(2) as pool:
        service = own.app.state.service
        first = pool.submit(own.post, "/predict", files=files(IMAGE, IMAGE, IMAGE))
        wait_for(lambda: service.images.n_taken == 3)
        status, error = post(own, *[b"x" * 19_000] * 2, *[b"x" * 11_000])
        taken = service.received_bytes.n_taken
        assert (status, "too many" in error) == (503, True)
        second = pool.submit(own.post, "/predict", files=files(IMAGE))
        wait_for(lambda: service.requests.n_taken == 2)
        assert own.get("/health").status_code == 200
        busy = own.get("/model")
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        assert "too many requests" in busy.json()["error"]
        assert "content-security-policy" in busy.headers
        gate.open.set()
        assert (first.result().status_code, second.result().status_code) == (200, 200)
        assert 0 < taken < 70_000


def test_a_request_that_takes_too_long_is_ended(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client(model, SMALL.model_copy(update={"max_seconds": 0.3})) as own:
        with monkeypatch.context() as patch:
            gate = Gate(patch)
            late = own.post("/predict", files=files(IMAGE))
            gate.open.set()
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        assert "the request took longer than 0.3 seconds" in late.json()["error"]
        service = own.app.state.service
        assert (service.images.n_taken, service.requests.n_taken, service.received_bytes.n_taken) == (0, 0, 0)
        assert own.get("/health").status_code == 200


def test_a_class_that_takes_too_long_is_not_added(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def slow(*_: object) -> None:
        assert go.wait(30)

    monkeypatch.setattr("sotglp.web.live_model.with_class", slow)
    with client(model, SMALL.model_copy(update={"max_seconds": 0.3})) as own:
        before = own.get("/model").json()
        assert own.post("/classes", files=files(IMAGE), data={"name": "fog"}).status_code == 503
        go.set()
        assert own.get("/model").json() == before


def statuses(own: TestClient, receive: Any) -> list[int | None]:
    """Statuses of the messages that answer a body from a receive function."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
    asyncio.run(own.app(scope, receive, send))
    return [message.get("status") for message in sent]


def test_a_body_that_comes_too_slowly_is_refused(model: Path) -> None:
    async def trickle() -> AsyncIterator[dict[str, Any]]:
        head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
        yield {"type": "http.request", "body": head, "more_body": True}
        while True:
            await asyncio.sleep(0.05)
            yield {"type": "http.request", "body": b"x", "more_body": True}

    with client(model, SMALL.model_copy(update={"max_seconds": 0.3})) as own:
        assert statuses(own, trickle().__anext__) == [503, None]


def test_a_client_that_disconnects_while_it_sends(small: TestClient) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    assert statuses(small, receive) == [400, None]
    assert small.app.state.service.requests.n_taken == 0


def test_a_refusal_of_a_complete_body_does_not_wait_for_more(small: TestClient) -> None:
    started = time.monotonic()
    assert post(small, IMAGE, IMAGE, IMAGE, IMAGE)[0] == 413
    assert time.monotonic() < started + 4


def test_a_request_that_is_cancelled_at_the_end_of_the_server_is_told_so() -> None:
    sent: list[Any] = []

    async def endless(*_: object) -> None:
        await asyncio.sleep(30)

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        limited = RequestLimits(endless, Quota(1, "requests"), 20.0, frozenset())
        scope = {"type": "http", "path": "/", "method": "GET"}
        request = asyncio.create_task(limited(scope, endless, send))
        await asyncio.sleep(0.01)
        request.cancel()
        await request

    asyncio.run(run())
    assert (sent[0]["status"], b"the server ends" in sent[1]["body"]) == (503, True)
