"""``sotglp export`` and ``sotglp predict`` with what it wrote, as processes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sotglp import SOTGLPClassifier
from support.command import fails, sotglp
from support.samples import make_class_folders


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_class_folders(root / "train", per_class=4, seed=0)
    make_class_folders(root / "test", per_class=4, seed=1)
    classifier = SOTGLPClassifier("tiny", epochs=2, augment=False)
    classifier.fit(root / "train")
    classifier.calibrate(root / "test", 0.5)
    classifier.save(root / "m.safetensors")
    return root


@pytest.fixture(scope="module")
def exported(data: Path) -> Path:
    out = data / "m.onnx"
    done = sotglp(
        "export", data / "m.safetensors", "--out", out, "--check", data / "test", "--json", data / "told.json"
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"wrote {out}: ")
    assert "largest difference on 20 images: probabilities " in done.stdout
    told = json.loads((data / "told.json").read_text())
    assert (told["n_checked"], told["same_labels"], told["quantized"]) == (20, 1, False)
    assert told["n_bytes"] == out.stat().st_size
    assert max(told["differences"].values()) <= 1e-4
    return out


def table(path: Path) -> tuple[list[list[str]], list[list[float]]]:
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label", "probability", "ood_score"]
    return [row[:2] for row in rows], [[float(value) for value in row[2:]] for row in rows[1:]]


def test_predict_says_what_the_model_says(exported: Path, data: Path, tmp_path: Path) -> None:
    for kind in ("safetensors", "onnx"):
        files = ("--csv", tmp_path / f"{kind}.csv", "--json", tmp_path / f"{kind}.json")
        sotglp("predict", data / f"m.{kind}", data / "test", "--unknown", *files)
    (names, numbers), (own_names, own) = table(tmp_path / "onnx.csv"), table(tmp_path / "safetensors.csv")
    np.testing.assert_allclose(numbers, own, rtol=0, atol=1e-4)
    threshold = json.loads((tmp_path / "onnx.json").read_text())["calibration"]["rejection"]["threshold"]
    # The threshold is the score of one of these images, so that one may fall on its other side by rounding.
    for row, own_row, (_, score) in zip(names[1:], own_names[1:], own, strict=True):
        assert row == own_row or abs(score - threshold) < 1e-5
    said, own_said = (json.loads((tmp_path / f"{kind}.json").read_text()) for kind in ("onnx", "safetensors"))
    assert said.keys() == own_said.keys()
    assert {name: said[name] for name in ("ood_method", "temperature", "calibration", "unreadable")} == {
        name: own_said[name] for name in ("ood_method", "temperature", "calibration", "unreadable")
    }
    assert said["predictions"][0].keys() == own_said["predictions"][0].keys()


def test_mistakes_end_in_one_sentence(
    exported: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(*options: object) -> str:
        return fails(capsys, monkeypatch, "export", data / "m.safetensors", *options)

    assert "exists: give another name, or --force" in export("--out", exported)
    assert "must end in .onnx" in export("--out", data / "m.bin")
    assert "ood_method = 'x' can't be used" in export("--out", data / "n.onnx", "--ood-method", "x")
    assert "does not exist" in export("--out", data / "n.onnx", "--check", data / "nowhere")
    assert not (data / "n.onnx").exists()
    for option in (["--ood-method", "msp"], ["--device", "cuda"], ["--workers", "2"], ["--temperature", "2"]):
        said = fails(capsys, monkeypatch, "predict", exported, data / "test", *option)
        assert f"{option[0]} can't be changed for {exported}" in said
    assert "there is no exported model" in fails(capsys, monkeypatch, "predict", data / "none.onnx", data / "test")
