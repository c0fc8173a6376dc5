"""The model as a download: one temporary copy, whatever clients do, and a full disk."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from sotglp.web.limits import Quota
from sotglp.web.live_model import ServedModel
from support.web_server import client, files, png

LARGE = png(size=900)
"""More than what an upload keeps in memory."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_all_clients_share_one_copy_which_is_removed_at_the_end(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Path] = []
    save = ServedModel.save

    def counted(served: ServedModel, path: Path) -> None:
        saved.append(path)
        save(served, path)

    monkeypatch.setattr(ServedModel, "save", counted)
    with client(model) as own:
        first, second = own.get("/model/file"), own.get("/model/file")
        assert first.content == second.content
        assert (len(saved), saved[0].exists()) == (1, True)
        assert own.post("/classes", files=files(png()), data={"name": "fog"}).status_code == 200
        assert own.get("/model/file").content != first.content
        assert (len(saved), saved[0].exists(), saved[1].exists()) == (2, False, True)
    assert list(folder.iterdir()) == []


def test_a_copy_that_was_removed_from_the_temporary_folder_is_written_again(model: Path, folder: Path) -> None:
    with client(model) as own:
        first = own.get("/model/file").content
        for path in folder.rglob("*.safetensors"):
            path.unlink()
        assert own.get("/model/file").content == first


def test_few_clients_download_at_once(shared: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.app.state.service.model_file, "_downloads", Quota(0, "downloads"))  # type: ignore[attr-defined]
    refused = shared.get("/model/file")
    assert (refused.status_code, "downloads" in refused.json()["error"]) == (503, True)


@pytest.mark.parametrize(("reason", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EACCES, 503)])
def test_a_disk_that_is_full_or_read_only(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, reason: int, status: int
) -> None:
    """Answers name no path of the server, and the next request works."""

    def fail(path: Any, *_: Any, **__: Any) -> Any:
        raise OSError(reason, os.strerror(reason), str(path))

    with client(model) as own:

        def answers() -> list[Any]:
            return [
                own.post("/predict", files=files(LARGE)),
                own.post("/classes", files=files(png()), data={"name": "fog"}),
                own.get("/model/file"),
            ]

        with monkeypatch.context() as patch:
            for where in ("_os.open", "_os.mkdir"):
                patch.setattr(f"tempfile.{where}", fail)
            for answer in answers():
                assert (answer.status_code, list(answer.json())) == (status, ["error"])
                assert str(folder) not in answer.text
                assert ("retry-after" in answer.headers) == (status == 503)
        assert [answer.status_code for answer in answers()] == [200] * 3


def test_a_disk_that_fills_while_the_model_is_written(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Any, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with client(model) as own:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", fail)
            refused = own.get("/model/file")
        assert (refused.status_code, str(folder) in refused.text) == (507, False)
        assert own.get("/model/file").status_code == 200
