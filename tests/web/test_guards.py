from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from sotglp.web.access import Access, is_loopback
from sotglp.web.app import create_app
from sotglp.web.live_model import LiveModel, load_served
from support.web_server import files, png


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 400),
        ("evil.example:8000", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("evil.example@localhost", 200),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_only_names_of_this_computer_are_answered(shared: TestClient, host: str, status: int) -> None:
    answer = shared.get("/model", headers={"Host": host})
    assert answer.status_code == status
    assert ("error" in answer.json()) == (status == 400)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_only_the_servers_own_page_may_send(shared: TestClient, headers: dict[str, str], status: int) -> None:
    assert shared.post("/predict", files=files(png()), headers=headers).status_code == status
    # A class that is not there, so that the request is taken and nothing changes.
    assert shared.delete("/classes/none", headers=headers).status_code == (404 if status == 200 else 403)
    assert shared.get("/model", headers=headers).status_code == 200


def test_a_public_server_accepts_any_host_name(model: Path) -> None:
    live = LiveModel(model.name, load_served(model, device="cpu", batch_size=8))
    with TestClient(create_app(live, access=Access(host="0.0.0.0")), base_url="http://box.example:8000") as shared:
        assert shared.get("/health").status_code == 200
        assert shared.post("/predict", files=files(png()), headers={"Origin": "http://evil.example"}).status_code == 403
        origin = {"Origin": "http://box.example:8000"}
        assert shared.post("/predict", files=files(png()), headers=origin).status_code == 200


def test_loopback() -> None:
    assert [is_loopback(host) for host in ("localhost", "127.0.0.1", "127.3.2.1", "::1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "")] == [False] * 5


def test_every_answer_has_the_safe_headers(shared: TestClient) -> None:
    answers = [
        shared.get("/"),
        shared.get("/model"),
        shared.get("/none"),
        shared.post("/predict"),
        shared.get("/static/app.js"),
    ]
    answers.append(shared.get("/model", headers={"Host": "evil.example"}))
    for answer in answers:
        assert "default-src 'self'; img-src 'self' blob: data:" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers
    assert [answer.headers["cache-control"] for answer in answers[:3]] == ["no-cache", "no-store", "no-store"]


def test_errors_of_the_path_are_sentences(shared: TestClient) -> None:
    for answer, status in ((shared.get("/none"), 404), (shared.get("/docs"), 404), (shared.put("/predict"), 405)):
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert "/openapi.json" in answer.json()["error"]
    assert shared.put("/predict").headers["allow"] == "POST"
    assert shared.get("/health/").status_code == 404


def test_head_is_answered_like_get(shared: TestClient) -> None:
    for path in ("/", "/health", "/model", "/model/file"):
        answer, whole = shared.head(path), shared.get(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == whole.headers["content-length"] == str(len(whole.content))
