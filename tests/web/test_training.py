"""Training through the API: from an empty server to a calibrated model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from sotglp.errors import SotglpError
from sotglp.model_file.load import load_model
from sotglp.web import training_run
from sotglp.web.limits import Limits
from sotglp.web.training import TrainedState, Training
from support.samples import COLOURS
from support.web_server import OLD, client, encoded, files, png, training_client


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A server without a model, whose temporary files are in a folder of the test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with training_client() as opened:
        yield opened
    assert list(tmp_path.iterdir()) == []


def add(own: TestClient, name: str, *contents: bytes | tuple[str, bytes]) -> int:
    """Add a class with images; its id."""
    added: int = own.post("/training/classes", params={"name": name}).json()["classes"][-1]["id"]
    if contents:
        answer = own.post(f"/training/classes/{added}/images", files=files(*contents))
        assert answer.status_code == 200, answer.text
    return added


def add_colours(own: TestClient, per_class: int) -> None:
    for index, name in enumerate(OLD):
        add(own, name, *(png(COLOURS[name], seed=10 * index + shot) for shot in range(per_class)))


def finished(own: TestClient) -> Any:
    """Wait for the end of the training; its state."""
    for _ in range(1200):
        state = own.get("/training").json()
        if state["run"]["status"] != "running":
            return state
        time.sleep(0.05)
    raise AssertionError(state)


def train(own: TestClient) -> Any:
    answer = own.post("/training/run")
    assert answer.status_code == 200, answer.text
    return finished(own)


def test_from_nothing_to_a_calibrated_model_that_is_downloaded(tmp_path: Path) -> None:
    out = tmp_path / "birds.safetensors"
    out.write_bytes(b"a file of the user")
    with training_client(out=out) as own:
        health = own.get("/health").json()
        assert (health["model"], health["n_classes"], health["trains"]) == (None, 0, True)
        assert own.get("/ready").status_code == 200
        refused = own.post("/predict", files=files(png()))
        assert (refused.status_code, "no model yet" in refused.json()["error"]) == (409, True)

        add_colours(own, 3)
        state = train(own)
        assert (state["run"]["status"], state["run"]["error"]) == ("done", None)
        model = state["model"]
        assert (model["backbone"], model["n_images"], model["is_current"]) == ("tiny", 9, True)
        assert model["accuracy"] == state["run"]["accuracy"]
        assert model["accuracy"]["n"] == 9
        assert 0 < model["accuracy"]["low"] < model["accuracy"]["n_correct"] / 9 <= model["accuracy"]["high"] <= 1
        assert model["accuracy"]["chance"] == pytest.approx(1 / 3)
        assert (model["tpr"], model["saved_as"]) == (None, "birds-2.safetensors")
        assert out.read_bytes() == b"a file of the user"

        (answer,) = own.post("/predict", files=files(png(COLOURS[OLD[1]], seed=77))).json()["predictions"]
        assert (answer["label"], answer["is_unknown"]) == (OLD[1], None)
        state = own.post("/training/calibration", params={"tpr": 0.9}).json()
        assert state["model"]["tpr"] == 0.9
        about = own.get("/model").json()
        assert (about["classes"], about["calibrated"], about["tpr"]) == (OLD, True, 0.9)
        assert about["can_add_classes"] is False
        assert own.post("/classes", files=files(png()), data={"name": "fog"}).status_code == 409

        report = own.get("/training/report")
        assert own.get("/training/report").content == report.content
        assert report.headers["content-disposition"] == 'attachment; filename="birds.html"'
        assert "3-fold cross-fitting" in report.text
        assert str(tmp_path) not in report.text
        content = own.get("/model/file").content
    assert content == (tmp_path / "birds-2.safetensors").read_bytes()
    loaded, record, calibration = load_model(tmp_path / "birds-2.safetensors")
    assert (list(loaded.class_names), record.backbone["name"]) == (OLD, "tiny")
    assert calibration is not None


def test_the_state_holds_all_that_a_page_shows(own: TestClient) -> None:
    first = add(own, "  red   rose ", ("rose.png", png(seed=1)), ("rose2.png", png(seed=2, size=900)))
    second = add(own, "fog", ("fog.png", png(seed=3)))
    state = own.get("/training").json()
    names = [(one["name"], [image["name"] for image in one["images"]]) for one in state["classes"]]
    assert names == [("red rose", ["rose.png", "rose2.png"]), ("fog", ["fog.png"])]
    assert (state["backbones"], state["run"], state["model"]) == (["tiny", "photo"], None, None)
    image = state["classes"][0]["images"][1]["id"]
    thumbnail = own.get(f"/training/images/{image}")
    assert thumbnail.headers["cache-control"] == "no-store"
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert len(thumbnail.content) < 50_000

    state = own.patch(f"/training/classes/{second}", params={"name": "mist"}).json()
    assert state["classes"][1]["name"] == "mist"
    state = own.delete(f"/training/images/{image}").json()
    assert len(state["classes"][0]["images"]) == 1
    assert [one["name"] for one in own.delete(f"/training/classes/{first}").json()["classes"]] == ["mist"]
    for path in (f"images/{image}", f"classes/{first}"):
        assert own.delete(f"/training/{path}").status_code == 404
    assert own.get(f"/training/images/{image}").status_code == 404


def test_images_are_left_out_with_a_reason(own: TestClient) -> None:
    known = png(seed=1)
    first, second = add(own, "rose", ("a.png", known)), add(own, "fog")
    sent = files(("b.png", b"no image"), ("a2.png", known), ("c.png", png(seed=2)))
    answer = own.post(f"/training/classes/{second}/images", files=sent).json()
    assert [one["name"] for one in answer["left_out"]] == ["b.png", "a2.png"]
    assert "'rose' has the same image already" in answer["left_out"][1]["error"]
    assert len(answer["added"]) == 1
    refused = own.post(f"/training/classes/{first}/images", files=files(("a2.png", known), ("b.png", b"no image")))
    assert (refused.status_code, "others" in refused.json()["error"]) == (422, True)
    assert own.post("/training/classes/99/images", files=files(known)).status_code == 404


def test_names_and_limits(tmp_path: Path) -> None:
    limits = Limits(max_added_classes=2, max_training_images=3)
    with training_client(limits) as own:
        for name in ("", "x" * 101, "unknown"):
            assert own.post("/training/classes", params={"name": name}).status_code == 422
        first = add(own, "rose", png(seed=1), png(seed=2))
        refused = own.post("/training/classes", params={"name": "ROSE"})
        assert (refused.status_code, "already a class 'rose'" in refused.json()["error"]) == (422, True)
        second = add(own, "fog")
        assert own.patch(f"/training/classes/{second}", params={"name": "Rose"}).status_code == 422
        assert own.post("/training/classes", params={"name": "third"}).status_code == 409
        refused = own.post(f"/training/classes/{second}/images", files=files(png(seed=3), png(seed=4)))
        assert (refused.status_code, "at most 3 images" in refused.json()["error"]) == (413, True)
        own.delete(f"/training/classes/{first}")
        assert own.post(f"/training/classes/{second}/images", files=files(png(seed=3), png(seed=4))).status_code == 200
    with training_client(Limits(max_training_bytes=1)) as own:
        add(own, "rose", png(seed=1))
        refused = own.post("/training/classes/1/images", files=files(png(seed=2)))
        assert refused.status_code == 413


def test_a_large_image_is_kept_smaller(own: TestClient) -> None:
    large = encoded(Image.new("RGB", (2400, 1600), (200, 30, 30)))
    add(own, "rose", ("large.png", large))
    (one,) = own.app.state.service.training.images.classes[0].images  # type: ignore[attr-defined]
    assert Image.open(one.path).size == (1152, 768)
    assert max(Image.open(one.thumbnail).size) == 256


def test_what_cannot_be_trained(own: TestClient) -> None:
    def error() -> str:
        refused = own.post("/training/run")
        assert refused.status_code == 422
        return str(refused.json()["error"])

    add(own, "rose", png(seed=1))
    assert "two classes" in error()
    add(own, "fog")
    assert "'fog' has no images" in error()
    assert own.post("/training/run", params={"backbone": "/etc"}).status_code == 422
    for path in ("report", "onnx"):
        assert own.get(f"/training/{path}").status_code == 409
    assert own.post("/training/calibration").status_code == 409


def test_a_class_of_one_image_is_trained_and_its_accuracy_is_unknown(own: TestClient) -> None:
    add_colours(own, 1)
    state = train(own)
    assert (state["run"]["status"], state["model"]["accuracy"]) == ("done", None)
    assert any("single image" in note for note in state["model"]["notes"])
    assert own.post("/predict", files=files(png())).status_code == 200
    refused = own.post("/training/calibration")
    assert (refused.status_code, "held-out" in refused.json()["error"]) == (409, True)


def test_only_one_training_runs_and_it_can_be_stopped(own: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()
    adapt = training_run.adapt

    def held(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go.wait(20)
        return adapt(*arguments, **options)

    monkeypatch.setattr(training_run, "adapt", held)
    add_colours(own, 2)
    assert own.post("/training/run").json()["run"]["status"] == "running"
    assert begun.wait(20)
    assert own.post("/training/run").status_code == 409
    assert own.get("/training/onnx").status_code == 409
    # What the training reads stays until its end.
    image = own.get("/training").json()["classes"][0]["images"][0]["id"]
    path = own.app.state.service.training.images.find_image(image)[1].path  # type: ignore[attr-defined]
    own.delete(f"/training/images/{image}")
    assert path.exists()
    own.delete("/training/run")
    go.set()
    state = finished(own)
    assert (state["run"]["status"], state["model"]) == ("stopped", None)
    monkeypatch.setattr(training_run, "adapt", adapt)
    own.delete(f"/training/classes/{state['classes'][0]['id']}")
    assert not path.exists()


def test_a_failed_training_leaves_the_model_and_names_images_as_sent(
    own: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(own, OLD[0], *(png(COLOURS[OLD[0]], seed=shot) for shot in range(2)))
    add(own, OLD[1], ("sea.png", png(COLOURS[OLD[1]], seed=5)))
    assert train(own)["model"]["is_current"]
    path = own.app.state.service.training.images.classes[1].images[0].path  # type: ignore[attr-defined]

    def fail(*_: Any, **__: Any) -> Any:
        raise SotglpError(f"can't read {path}")

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "adapt", fail)
        state = train(own)
    assert (state["run"]["status"], state["run"]["error"]) == ("failed", "can't read sea.png")
    assert own.post("/predict", files=files(png())).status_code == 200
    own.patch(f"/training/classes/{state['classes'][1]['id']}", params={"name": "pond"})
    assert own.get("/training").json()["model"]["is_current"] is False


def test_a_file_is_written_once_for_each_model(own: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(training: Training, _: TrainedState) -> Path:
        written.append(training._new_path(".onnx"))
        written[-1].write_bytes(b"%d" % len(written))
        return written[-1]

    monkeypatch.setattr(Training, "_onnx", write)
    add_colours(own, 1)
    train(own)
    assert [own.get("/training/onnx").content for _ in range(2)] == [b"1", b"1"]
    train(own)
    assert own.get("/training/onnx").content == b"2"
    assert [path.exists() for path in written] == [False, True]


def test_a_file_that_takes_longer_than_a_request_may_is_there_when_it_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go, written = threading.Event(), []

    def write(training: Training, _: TrainedState) -> Path:
        assert go.wait(20)
        written.append(training._new_path(".onnx"))
        written[-1].write_bytes(b"graph")
        return written[-1]

    monkeypatch.setattr(Training, "_onnx", write)
    with training_client() as own:
        add_colours(own, 1)
        train(own)
        training: Training = own.app.state.service.training  # type: ignore[attr-defined]
        training._wait_seconds = 0.05
        for _ in range(2):
            early = own.get("/training/onnx")
            assert (early.status_code, early.headers["retry-after"]) == (503, "1")
            assert "being written" in early.json()["error"]
        go.set()
        training._wait_seconds = 20.0
        assert own.get("/training/onnx").content == b"graph"
    assert len(written) == 1


def test_a_server_with_a_model_file_does_not_train(model: Path) -> None:
    with client(model) as own:
        assert own.get("/health").json()["trains"] is False
        assert own.get("/training").status_code == 404
