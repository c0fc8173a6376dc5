"""``sotglp export`` and ``sotglp predict`` with what it wrote, as processes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sotglp import SOTGLPClassifier
from support.command import Run, sotglp
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
        "export", data / "m.safetensors", "--out", out, "--check", data / "test", "--json", data / "result.json"
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"wrote {out}: ")
    assert "largest difference on 20 images: probabilities " in done.stdout
    result = json.loads((data / "result.json").read_text())
    assert (result["n_checked"], result["same_labels"], result["quantized"]) == (20, 1, False)
    assert result["n_bytes"] == out.stat().st_size
    assert max(result["differences"].values()) <= 1e-4
    return out


def table(path: Path) -> tuple[list[list[str]], list[list[float]]]:
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label", "probability", "ood_score", "is_unknown"]
    return [[*row[:2], row[4]] for row in rows], [[float(value) for value in row[2:4]] for row in rows[1:]]


def test_an_exported_model_predicts_like_the_model_file(exported: Path, data: Path, tmp_path: Path) -> None:
    for kind in ("safetensors", "onnx"):
        files = ("--csv", tmp_path / f"{kind}.csv", "--json", tmp_path / f"{kind}.json")
        sotglp("predict", data / f"m.{kind}", data / "test", "--unknown", *files)
    (names, numbers), (own_names, own) = table(tmp_path / "onnx.csv"), table(tmp_path / "safetensors.csv")
    np.testing.assert_allclose(numbers, own, rtol=0, atol=1e-4)
    threshold = json.loads((tmp_path / "onnx.json").read_text())["calibration"]["rejection"]["threshold"]
    # The threshold is the score of one of these images, so that one may fall on its other side by rounding.
    for row, own_row, (_, score) in zip(names[1:], own_names[1:], own, strict=True):
        assert row == own_row or abs(score - threshold) < 1e-5
    result, expected = (json.loads((tmp_path / f"{kind}.json").read_text()) for kind in ("onnx", "safetensors"))
    assert result.keys() == expected.keys()
    assert {name: result[name] for name in ("ood_method", "temperature", "calibration", "unreadable")} == {
        name: expected[name] for name in ("ood_method", "temperature", "calibration", "unreadable")
    }
    assert result["predictions"][0].keys() == expected["predictions"][0].keys()


def test_mistakes_end_in_one_sentence(exported: Path, data: Path, error_of: Run) -> None:
    def export(*options: object) -> str:
        return error_of("export", data / "m.safetensors", *options)

    assert "exists: give another name, or --force" in export("--out", exported)
    assert "must end in .onnx" in export("--out", data / "m.bin")
    assert "ood_method = 'x' can't be used" in export("--out", data / "n.onnx", "--ood-method", "x")
    assert "does not exist" in export("--out", data / "n.onnx", "--check", data / "nowhere")
    assert not (data / "n.onnx").exists()
    for option in (["--ood-method", "msp"], ["--device", "cuda"], ["--workers", "2"], ["--temperature", "2"]):
        result = error_of("predict", exported, data / "test", *option)
        assert f"{option[0]} can't be changed for {exported}" in result
    assert "there is no exported model" in error_of("predict", data / "none.onnx", data / "test")
