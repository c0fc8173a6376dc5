from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from sotglp import SOTGLPClassifier
from sotglp.cli.classes import classes
from sotglp.estimators.method import MethodClassifier
from sotglp.explain.explanation import explain
from sotglp.images.decode import MAX_PIXELS, open_image
from sotglp.model_file.load import load_model
from sotglp.model_file.record import read_record
from sotglp.scoring.predict import Predictions, predict
from sotglp.settings import InferenceConfig
from sotglp.web.decoding import Worker
from sotglp.web.limits import Limits
from sotglp.web.messages import Message
from support.command import sotglp
from support.samples import COLOURS
from support.web_server import OLD, QUICK, client, encoded, files, make_model, png


@pytest.fixture
def own(model: Path) -> Iterator[TestClient]:
    with client(model) as own:
        yield own


def photos(model: Path) -> list[Path]:
    return sorted((model.parent / "train").glob("*/*.png"))


def test_health_and_model(shared: TestClient, model: Path) -> None:
    health = shared.get("/health").json()
    assert (health["status"], health["model"], health["kind"]) == ("ok", "m.safetensors", "sot-glp")
    assert (health["backbone"], health["n_classes"], health["device"]) == ("tiny", 3, "cpu")
    about = shared.get("/model").json()
    calibration = read_record(model).calibration
    assert calibration is not None
    assert about["classes"] == OLD
    assert (about["calibrated"], about["threshold"]) == (True, calibration.rejection.threshold)
    assert (about["tpr"], about["ood_method"]) == (0.95, calibration.ood_method)
    assert (about["has_maps"], about["n_prompts"], about["can_add_classes"]) == (True, 4, True)
    assert (about["changed"], about["added"]) == (False, [])
    limits = {"max_image_bytes": 20_000_000, "max_images": 64, "max_seconds": 60.0, "max_pixels": MAX_PIXELS}
    assert about["limits"] == limits


def test_predictions_are_those_of_the_command(shared: TestClient, model: Path, tmp_path: Path) -> None:
    # Not the images of the calibration: one of them has the score of the threshold.
    paths = [tmp_path / f"{index}.png" for index in range(10)]
    for index, path in enumerate(paths):
        path.write_bytes(png(COLOURS[OLD[index % 3]], seed=100 + index))
    other = tmp_path / "grey.png"
    other.write_bytes(png())
    sotglp("predict", model, *paths, other, "--unknown", "--json", tmp_path / "p.json", "--csv", tmp_path / "s.csv")
    expected = json.loads((tmp_path / "p.json").read_text())["predictions"]
    contents = files(*((path.name, path.read_bytes()) for path in (*paths, other)))
    found = shared.post("/predict", files=contents).json()["predictions"]
    assert [one["name"] for one in found] == [path.name for path in (*paths, other)]
    for mine, its in zip(found, expected, strict=True):
        assert mine["probabilities"] == pytest.approx(its["probabilities"], abs=1e-5)
        assert mine["ood_score"] == pytest.approx(its["ood_score"], abs=1e-5)
        assert mine["is_unknown"] == (its["label"] == "unknown")
        assert mine["label"] == max(mine["probabilities"], key=mine["probabilities"].get)
        assert mine["probability"] == mine["probabilities"][mine["label"]]
    assert {one["is_unknown"] for one in found} == {True, False}

    table = shared.post("/predict.csv", files=contents)
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert table.headers["content-disposition"] == 'attachment; filename="predictions.csv"'
    rows = list(csv.DictReader(io.StringIO(table.text)))
    with open(tmp_path / "s.csv", newline="") as file:
        its_rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(its_rows[0])
    for name in ("label", "is_unknown"):
        assert [row[name] for row in rows] == [row[name] for row in its_rows]
    scores = [float(row["ood_score"]) for row in its_rows]
    assert [float(row["ood_score"]) for row in rows] == pytest.approx(scores, abs=1e-5)


def test_unknown_needs_a_calibration_and_the_query(shared: TestClient, tmp_path: Path) -> None:
    answer = shared.post("/predict", files=files(png()), params={"unknown": False}).json()["predictions"][0]
    assert (answer["is_unknown"], answer["label"] in OLD) == (None, True)
    (tmp_path / "plain").mkdir()
    with client(make_model(tmp_path / "plain", calibrated=False)) as plain:
        assert plain.post("/predict", files=files(png())).json()["predictions"][0]["is_unknown"] is None
        about = plain.get("/model").json()
        assert (about["calibrated"], about["tpr"], about["threshold"]) == (False, None, None)
        assert plain.post("/explain", files=files(png(), field="image")).json()["threshold"] is None


def test_an_unreadable_image_has_its_error_in_its_place(shared: TestClient) -> None:
    contents = files(png(), ("leaf.jpg", b""), png(seed=1), ("=1+1.png", b"no image"))
    found = shared.post("/predict", files=contents).json()["predictions"]
    assert [list(one) == ["name", "error"] for one in found] == [False, True, False, True]
    assert found[1]["error"] == "can't read leaf.jpg: it is empty; replace it or leave it out"
    assert "can't read =1+1.png: it isn't a complete image" in found[3]["error"]
    rows = list(csv.reader(io.StringIO(shared.post("/predict.csv", files=contents).text)))
    assert rows[2] == ["leaf.jpg", "", "", "", ""]
    assert rows[4][0] == "'=1+1.png"
    refused = shared.post("/predict", files=contents[1:2])
    assert (refused.status_code, refused.json()) == (422, {"error": found[1]["error"]})
    refused = shared.post("/predict", files=[contents[1], contents[3]])
    assert (refused.status_code, refused.json()["error"].endswith("(nor any of the 1 others)")) == (422, True)


def test_no_cell_is_a_formula(shared: TestClient) -> None:
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\uff1d1+1"]
    table = shared.post("/predict.csv", files=files(*((name, png()) for name in names))).text
    assert [row[0] for row in csv.reader(io.StringIO(table))][1:] == [f"'{name}" for name in names]


def test_explanations_are_the_librarys(shared: TestClient, model: Path) -> None:
    path = photos(model)[0]
    loaded, _, calibration = load_model(model)
    expected = explain(loaded, path, [OLD[2], OLD[0]], InferenceConfig(), calibration).to_dict() | {"path": "a.png"}
    image = files(("a.png", path.read_bytes()), field="image")
    found = shared.post("/explain", files=image, params={"classes": [OLD[2], OLD[0]]}).json()
    probabilities = found.pop("probabilities")
    assert list(probabilities) == OLD
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert list(found) == list(expected)
    for mine, its in zip(found.pop("classes"), expected.pop("classes"), strict=True):
        assert mine["probability"] == probabilities[mine["label"]]
        patches, its_patches = (
            {(patch["row"], patch["column"]): patch for patch in one.pop("patches")} for one in (mine, its)
        )
        assert patches.keys() == its_patches.keys()
        for cell, patch in patches.items():
            assert patch["box"] == its_patches[cell]["box"]
            assert patch["mass"] == pytest.approx(its_patches[cell]["mass"], abs=1e-5)
        assert mine.pop("label") == its.pop("label")
        assert mine == pytest.approx(its, abs=1e-5)
    assert found.pop("ood_score") == pytest.approx(expected.pop("ood_score"), abs=1e-5)
    assert found == expected


def test_which_classes_are_explained(shared: TestClient) -> None:
    def labels(**params: object) -> list[str]:
        answer = shared.post("/explain", files=files(png(COLOURS[OLD[1]]), field="image"), params=params)
        assert answer.status_code == 200, answer.text
        return [one["label"] for one in answer.json()["classes"]]

    answer = shared.post("/predict", files=files(png(COLOURS[OLD[1]]))).json()["predictions"][0]
    by_probability = sorted(OLD, key=answer["probabilities"].get, reverse=True)
    assert labels() == by_probability[:1]
    assert labels(top=2) == by_probability[:2]
    assert labels(top=9) == by_probability
    assert labels(classes=[OLD[2], OLD[0], OLD[2]]) == [OLD[2], OLD[0]]


def test_explanations_that_are_refused(shared: TestClient) -> None:
    def error(params: object = None, *contents: bytes) -> str:
        refused = shared.post("/explain", files=files(*contents or (png(),), field="image"), params=params)
        assert refused.status_code == 422
        return refused.json()["error"]

    assert "there is no class 'blue see' (did you mean blue sea?)" in error({"classes": "blue see"})
    assert "classes and top" in error({"classes": OLD[0], "top": 1})
    assert "top = '0' is invalid" in error({"top": 0})
    assert "takes one image, not 2" in error(None, png(), png())
    assert "can't read 0.png" in error(None, b"no image")


def test_a_class_is_added_and_used_at_once(own: TestClient, model: Path, tmp_path: Path) -> None:
    before = model.read_bytes()
    images = [png(seed=seed) for seed in range(4)]
    answer = own.post("/classes", files=files(*images[:3]), data={"name": "  grey   cloud "})
    assert answer.status_code == 200
    assert (answer.json()["classes"], answer.json()["added"]) == ([*OLD, "grey cloud"], "grey cloud")
    assert "stored shots" in answer.json()["recalibration"]
    assert model.read_bytes() == before
    about = own.get("/model").json()
    assert (about["classes"], about["added"]) == ([*OLD, "grey cloud"], ["grey cloud"])
    assert (about["changed"], about["calibrated"]) == (True, True)
    found = own.post("/predict", files=files(images[3])).json()["predictions"][0]
    assert found["label"] == "grey cloud"
    explained = own.post("/explain", files=files(images[3], field="image"), params={"classes": "grey cloud"}).json()
    assert explained["classes"][0]["n_prompts"] == 4

    # The file is what `sotglp classes add` makes of the same images.
    (tmp_path / "images").mkdir()
    for index, image in enumerate(images[:3]):
        (tmp_path / "images" / f"{index}.png").write_bytes(image)
    command = ["add", str(model), "grey cloud", str(tmp_path / "images"), "--out", str(tmp_path / "grown.safetensors")]
    assert CliRunner().invoke(classes, [*command, "--no-cache"]).exit_code == 0
    answer = own.get("/model/file")
    assert answer.content == (tmp_path / "grown.safetensors").read_bytes()
    assert answer.headers["content-disposition"] == 'attachment; filename="m.safetensors"'


def test_removing_all_added_classes_restores_the_model(own: TestClient, model: Path) -> None:
    before = own.post("/predict", files=files(png())).json()
    for name in ("fog", "a/b c"):
        assert own.post("/classes", files=files(png(), png(seed=1)), data={"name": name}).status_code == 200
    answer = own.delete("/classes/fog").json()
    assert (answer["classes"], answer["removed"]) == ([*OLD, "a/b c"], "fog")
    assert "stored shots" in answer["recalibration"]
    assert own.delete("/classes/a%2Fb%20c").json() == {"classes": OLD, "removed": "a/b c", "recalibration": ""}
    about = own.get("/model").json()
    assert (about["changed"], about["calibrated"]) == (False, True)
    assert own.post("/predict", files=files(png())).json() == before
    assert own.get("/model/file").content == model.read_bytes()


def test_classes_that_cannot_be_added_or_removed(own: TestClient) -> None:
    def error(name: str | None, *contents: bytes | tuple[str, bytes]) -> str:
        data = {} if name is None else {"name": name}
        refused = own.post("/classes", files=files(*contents or (png(),)), data=data)
        assert refused.status_code == 422
        return refused.json()["error"]

    assert "the label of images that are rejected" in error(" Unknown")
    assert "already has a class 'blue sea'" in error("blue sea")
    assert "give the same prompt" in error("BLUE sea")
    assert "can't read leaf.jpg: it is empty" in error("fog", png(), ("leaf.jpg", b""))
    for name in (None, "", "  ", "x" * 101, "a\x1b[31mb"):
        assert "must have 1 to 100 printable characters" in error(name)
    for name in (OLD[0], "fog"):
        refused = own.delete(f"/classes/{name}")
        assert (refused.status_code, list(refused.json())) == (404, ["error"])
    assert own.get("/model").json()["classes"] == OLD


def test_an_open_request_keeps_its_model(own: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()

    ask = Worker.ask

    def held(*arguments: Any) -> Message:
        if not begun.is_set():
            begun.set()
            assert go.wait(20)
        return ask(*arguments)

    monkeypatch.setattr(Worker, "ask", held)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(own.post, "/predict", files=files(png()))
        assert begun.wait(20)
        assert own.post("/classes", files=files(png()), data={"name": "fog"}).status_code == 200
        go.set()
        assert list(waiting.result().json()["predictions"][0]["probabilities"]) == OLD
    assert list(own.post("/predict", files=files(png())).json()["predictions"][0]["probabilities"]) == [*OLD, "fog"]


def test_images_of_many_requests_share_batches(own: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch waits until all images are decoded; the others form batches of 8."""
    n_clients = 17
    decoded = threading.Semaphore(0)

    def counted(*arguments: Any) -> Message:
        decoded.release()
        return ask(*arguments)

    def late(*arguments: Any, **options: Any) -> Predictions:
        if service.n_batches == 0:
            for _ in range(n_clients):
                assert decoded.acquire(timeout=20)
            time.sleep(0.3)
        return predict(*arguments, **options)

    ask, service = Worker.ask, own.app.state.service
    images = [png(COLOURS[OLD[index % 3]], seed=index) for index in range(n_clients)]
    with monkeypatch.context() as patch, ThreadPoolExecutor(n_clients) as pool:
        patch.setattr(Worker, "ask", counted)
        patch.setattr("sotglp.web.service.predict", late)
        answers = [pool.submit(own.post, "/predict", files=files(image)) for image in images]
        found = [answer.result().json()["predictions"][0] for answer in answers]
    assert service.n_batches <= 4
    for image, mine in zip(images, found, strict=True):
        alone = own.post("/predict", files=files(image)).json()["predictions"][0]
        assert mine["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-5)


def test_a_model_without_maps_that_cannot_add_classes(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "probe.safetensors"
    settings = {"augment": False, "remember": False}
    MethodClassifier("linear-probe", "tiny", settings=settings, shots=None).fit(model.parent / "train").save(path)
    with client(path) as own:
        about = own.get("/model").json()
        assert (about["has_maps"], about["n_prompts"], about["can_add_classes"]) == (False, 0, False)
        assert own.post("/predict", files=files(png())).status_code == 200
        refused = own.post("/explain", files=files(png(), field="image"))
        assert (refused.status_code, "has no maps" in refused.json()["error"]) == (422, True)
        refused = own.post("/classes", files=files(png()), data={"name": "fog"})
        assert (refused.status_code, "can't add a class" in refused.json()["error"]) == (422, True)


def test_classes_that_are_numbers(model: Path, tmp_path: Path) -> None:
    paths = photos(model)
    numbers = [10 * OLD.index(path.parent.name) for path in paths]
    SOTGLPClassifier("tiny", **QUICK).fit(paths, numbers).save(tmp_path / "m.safetensors")
    with client(tmp_path / "m.safetensors") as own:
        assert own.get("/model").json()["classes"] == ["0", "10", "20"]
        refused = own.post("/classes", files=files(png()), data={"name": "fog"})
        assert (refused.status_code, "'fog'" in refused.json()["error"]) == (422, True)
        assert own.post("/classes", files=files(png()), data={"name": "7"}).json()["classes"] == ["0", "10", "20", "7"]
        (tmp_path / "more.safetensors").write_bytes(own.get("/model/file").content)
    assert read_record(tmp_path / "more.safetensors").classes == [0, 10, 20, 7]


def test_a_carried_backbone_stays_in_the_file(model: Path, tmp_path: Path) -> None:
    SOTGLPClassifier.load(model).save(tmp_path / "m.safetensors", include_backbone=True)
    with client(tmp_path / "m.safetensors") as own:
        assert own.get("/model/file").content == (tmp_path / "m.safetensors").read_bytes()


def test_the_page_and_its_files(shared: TestClient) -> None:
    page = shared.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name, kind in {"app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}.items():
        file = shared.get(f"/static/{name}")
        assert (file.status_code, file.headers["content-type"].split(";")[0]) == (200, kind)
    for name in ("none.js", "..%2F__init__.py", "%2Fetc%2Fpasswd", "__pycache__"):
        assert shared.get(f"/static/{name}").status_code == 404


def test_the_picture_is_upright_and_of_any_size(shared: TestClient) -> None:
    wide = open_image(png(size=60)).resize((90, 30))
    answer = shared.post("/explain", files=files(encoded(wide), field="image")).json()
    assert (answer["width"], answer["height"], answer["seen"]) == (90, 30, [30, 0, 60, 30])


def test_a_failure_of_the_server_shows_no_traceback(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("sotglp.web.service.predict", fails)
    with client(model, Limits(), raise_server_exceptions=False) as own:
        failed = own.post("/predict", files=files(png()))
        assert (failed.status_code, "secret" in failed.text) == (500, False)
        assert list(failed.json()) == ["error"]
        monkeypatch.undo()
        assert own.post("/predict", files=files(png())).status_code == 200
