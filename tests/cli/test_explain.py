from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sotglp import MethodClassifier, SOTGLPClassifier
from support.command import Run, sotglp
from support.samples import COLOURS, make_class_folders

QUICK = {"epochs": 2, "batch_size": 9, "augment": False, "shots": None}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_class_folders(tmp_path_factory.mktemp("explain") / "train", per_class=3)
    classifier = SOTGLPClassifier("tiny", **QUICK).fit(root)
    classifier.save(root / "m.safetensors")
    classifier.calibrate(root).save(root / "calibrated.safetensors")
    return root / "m.safetensors"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "garden.jpg")
    return tmp_path / "garden.jpg"


def test_as_a_user_runs_it(model: Path, image: Path) -> None:
    done = sotglp("explain", model, image, "--out", image.parent / "maps.png", "--top", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert "of 64 patches" in lines[0]
    assert "threshold" in lines[2]
    with Image.open(image.parent / "maps.png") as picture:
        assert picture.width > 800
    failed = sotglp("explain", model, image, "--out", image.parent / "maps.png", check=False)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert "exists" in failed.stderr


def test_svg_and_pdf(model: Path, image: Path, output_of: Run) -> None:
    output_of("explain", model, image, "--out", image.with_suffix(".svg"))
    assert ET.parse(image.with_suffix(".svg")).getroot().tag.endswith("svg")
    output_of("explain", model, image, "--out", image.with_suffix(".pdf"))
    assert image.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_boxes_are_those_of_the_library(model: Path, image: Path, output_of: Run) -> None:
    output_of(
        "explain", model, image, "--out", image.with_suffix(".json"), "--class", "blue sea", "--class", "red_brick"
    )
    result = json.loads(image.with_suffix(".json").read_text())
    assert result.pop("versions").keys() >= {"sotglp", "torch"}
    expected = SOTGLPClassifier.load(model).explain(image, ["blue sea", "red_brick"])
    assert result == expected.to_dict()
    left, top, right, bottom = result["seen"]
    assert (top, bottom) == (0, 60)
    assert right - left == pytest.approx(60, abs=1)
    assert left == pytest.approx(20, abs=1)


def test_json_on_standard_output_is_all_there_is(model: Path, image: Path, output_of: Run) -> None:
    result = json.loads(output_of("explain", model, image, "--json", "-", "--out", image.with_suffix(".png")))
    assert len(result["classes"]) == 1
    assert result["classes"][0]["label"] in COLOURS
    assert image.with_suffix(".png").exists()


def test_a_calibrated_model_rejects_unknown_images(model: Path, image: Path, output_of: Run) -> None:
    calibrated = model.with_name("calibrated.safetensors")
    result = json.loads(output_of("explain", calibrated, image, "--json", "-"))
    assert result["is_unknown"] == (result["ood_score"] < result["threshold"])
    said = output_of("explain", calibrated, image, "--out", image.with_suffix(".png"))
    assert ("unlike the known classes" in said) == result["is_unknown"]
    other = json.loads(output_of("explain", calibrated, image, "--json", "-", "--ood-method", "msp"))
    assert other["threshold"] is None
    assert other["ood_method"] == "msp"


def test_mistakes_end_in_one_sentence(model: Path, image: Path, error_of: Run) -> None:
    assert "there is no output" in error_of("explain", model, image)
    assert "must end in" in error_of("explain", model, image, "--out", "maps.bmp")
    assert "is a folder" in error_of("explain", model, image.parent, "--json", "-")
    assert "there is no class 'blue see' (did you mean blue sea?)" in error_of(
        "explain", model, image, "--json", "-", "--class", "blue see"
    )
    assert "can't read" in error_of("explain", model, image.with_name("other.jpg"), "--json", "-")
    image.with_suffix(".json").write_text("mine")
    assert "not a result of sotglp" in error_of("explain", model, image, "--out", image.with_suffix(".json"), "--force")
    assert image.with_suffix(".json").read_text() == "mine"


def test_a_method_without_a_plan_is_refused(model: Path, image: Path, error_of: Run) -> None:
    MethodClassifier("zero-shot", backbone="tiny").fit(model.parent).save(image.with_name("zero.safetensors"))
    assert "no transport plan" in error_of("explain", image.with_name("zero.safetensors"), image, "--json", "-")
