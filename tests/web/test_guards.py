from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from sotglp.web.app import create_app
from sotglp.web.guards import is_loopback
from sotglp.web.live_model import LiveModel, load_served
from support.web_server import client, files, make_model, png


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("web"), calibrated=False)


@pytest.fixture(scope="module")
def own(model: Path) -> Iterator[TestClient]:
    with client(model) as own:
        yield own


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
def test_only_names_of_this_computer_are_answered(own: TestClient, host: str, status: int) -> None:
    answer = own.get("/model", headers={"Host": host})
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
def test_only_its_own_page_may_send(own: TestClient, headers: dict[str, str], status: int) -> None:
    assert own.post("/predict", files=files(png()), headers=headers).status_code == status
    # A class that is not there, so that the request is taken and nothing changes.
    assert own.delete("/classes/none", headers=headers).status_code == (404 if status == 200 else 403)
    assert own.get("/model", headers=headers).status_code == 200


def test_any_name_will_do_where_other_computers_are_let_in(model: Path) -> None:
    live = LiveModel(model.name, load_served(model, device="cpu", batch_size=8))
    with TestClient(create_app(live, host="0.0.0.0"), base_url="http://box.example:8000") as own:
        assert own.get("/health").status_code == 200
        assert own.post("/predict", files=files(png()), headers={"Origin": "http://evil.example"}).status_code == 403
        origin = {"Origin": "http://box.example:8000"}
        assert own.post("/predict", files=files(png()), headers=origin).status_code == 200


def test_loopback() -> None:
    assert [is_loopback(host) for host in ("localhost", "127.0.0.1", "127.3.2.1", "::1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "")] == [False] * 5


def test_every_answer_has_the_safe_headers(own: TestClient) -> None:
    answers = [own.get("/"), own.get("/model"), own.get("/none"), own.post("/predict"), own.get("/static/app.js")]
    answers.append(own.get("/model", headers={"Host": "evil.example"}))
    for answer in answers:
        assert "default-src 'self'; img-src 'self' blob: data:" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers
    assert [answer.headers["cache-control"] for answer in answers[:3]] == ["no-cache", "no-store", "no-store"]


def test_errors_of_the_path_are_sentences(own: TestClient) -> None:
    for answer, status in ((own.get("/none"), 404), (own.get("/docs"), 404), (own.put("/predict"), 405)):
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert "/openapi.json" in answer.json()["error"]
    assert own.put("/predict").headers["allow"] == "POST"
    assert own.get("/health/").status_code == 404
