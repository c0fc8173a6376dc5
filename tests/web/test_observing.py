"""Request ids and metrics."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from sotglp.web.service import Service
from support.web_server import client, files, png


def test_a_request_has_the_id_that_a_proxy_gave_it_or_a_new_one(shared: TestClient) -> None:
    assert shared.get("/health", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for odd in ("a b", "", "x" * 65, 'a"b'):
        assert len(shared.get("/health", headers={"X-Request-ID": odd}).headers["x-request-id"]) == 32


def test_requests_are_counted_by_path_and_status(model: Path) -> None:
    with client(model) as own:
        own.get("/health")
        own.get("/health")
        own.delete("/classes/none")
        for index in range(50):
            own.request(f"X{index}", f"/{index}")
        lines = own.get("/metrics").text.splitlines()
    assert 'sotglp_requests_total{method="GET",path="/health",status="200"} 2' in lines
    assert 'sotglp_requests_total{method="DELETE",path="/classes",status="404"} 1' in lines
    assert 'sotglp_requests_total{method="other",path="other",status="404"} 50' in lines
    assert 'sotglp_request_seconds_bucket{le="+Inf"} 53' in lines
    assert "sotglp_request_seconds_count 53" in lines
    assert "sotglp_classes 3" in lines


def test_an_error_of_the_server_is_counted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("broken")

    monkeypatch.setattr(Service, "predict", fail)
    with client(model, raise_server_exceptions=False) as own:
        assert own.post("/predict", files=files(png())).status_code == 500
        assert 'path="/predict",status="500"} 1' in own.get("/metrics").text
