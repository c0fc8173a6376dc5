"""Logs of bounded size."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from sotglp import SotglpError
from sotglp.web import logs
from sotglp.web.logs import ACCESS_LOG, BoundedRate, open_access_log


@pytest.fixture
def access_log(tmp_path: Path) -> Iterator[Path]:
    open_access_log(tmp_path / "access.log")
    yield tmp_path / "access.log"
    for handler in list(ACCESS_LOG.handlers):
        ACCESS_LOG.removeHandler(handler)
        handler.close()


def test_a_line_for_each_request_whatever_its_path(shared: TestClient, access_log: Path) -> None:
    shared.get("/health", headers={"X-Request-ID": "abc-1"})
    shared.get(quote('/a"b\r\n2026 forged\u202e' + "x" * 500))
    first, second = access_log.read_text().splitlines()
    assert first.endswith("id=abc-1")
    assert '"GET /health" 200 ' in first
    assert " 404 " in second
    assert len(second) < 400


def test_the_access_log_is_replaced_before_it_is_too_large(
    shared: TestClient, access_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ACCESS_LOG.handlers[0], "maxBytes", 2000)
    for _ in range(200):
        shared.get("/none")
    found = sorted(path.name for path in access_log.parent.iterdir())
    assert found == ["access.log", *(f"access.log.{n}" for n in range(1, 6))]
    assert all(path.stat().st_size <= 2000 for path in access_log.parent.iterdir())


def test_an_access_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SotglpError, match="none"):
        open_access_log(tmp_path / "none" / "access.log")


def test_many_warnings_are_not_all_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: written.append(str(message)))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs.bound_error_log()
    for n in range(100):
        warnings.showwarning(f"warning {n}", UserWarning, "file", 1)
    assert len(written) == 30


def test_many_errors_are_counted_in_place_of_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    at_most = BoundedRate(n=3, seconds=60)

    def passed() -> list[str]:
        records = [logging.makeLogRecord({"msg": "failed %d", "args": (n,)}) for n in range(10)]
        return [record.getMessage() for record in records if at_most.filter(record)]

    assert passed() == ["failed 0", "failed 1", "failed 2"]
    now += 61
    assert passed() == ["failed 0 (7 earlier messages were left out)", "failed 1", "failed 2"]
