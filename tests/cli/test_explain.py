from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from sotglp import MethodClassifier, SOTGLPClassifier, SotglpError
from sotglp.cli.explain import explain
from support.command import sotglp
from support.samples import COLOURS, make_class_folders

QUICK = {"epochs": 2, "batch_size": 9, "augment": False, "shots": None}

app = Typer()
app.command()(explain)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.exception
    return result.stdout


def fails(*arguments: object) -> str:
    """The sentence that `sotglp` prints before it exits with code 2."""
    error = invoke(*arguments).exception
    assert isinstance(error, SotglpError)
    return str(error)


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
    assert len(lines) == 3
    assert "of 64 patches" in lines[0]
    with Image.open(image.parent / "maps.png") as picture:
        assert picture.width > 800
    failed = sotglp("explain", model, image, "--out", image.parent / "maps.png", check=False)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert "exists" in failed.stderr


def test_svg_and_pdf(model: Path, image: Path) -> None:
    run(model, image, "--out", image.with_suffix(".svg"))
    assert ET.parse(image.with_suffix(".svg")).getroot().tag.endswith("svg")
    run(model, image, "--out", image.with_suffix(".pdf"))
    assert image.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_boxes_are_those_of_the_library(model: Path, image: Path) -> None:
    run(model, image, "--out", image.with_suffix(".json"), "--class", "blue sea", "--class", "red_brick")
    told = json.loads(image.with_suffix(".json").read_text())
    assert told.pop("versions").keys() >= {"sotglp", "torch"}
    expected = SOTGLPClassifier.load(model).explain(image, ["blue sea", "red_brick"])
    assert told == expected.to_dict()
    left, top, right, bottom = told["seen"]
    assert (top, bottom) == (0, 60)
    assert right - left == pytest.approx(60, abs=1)
    assert left == pytest.approx(20, abs=1)


def test_json_on_standard_output_is_all_there_is(model: Path, image: Path) -> None:
    told = json.loads(run(model, image, "--json", "-", "--out", image.with_suffix(".png")))
    assert len(told["classes"]) == 1
    assert told["classes"][0]["label"] in COLOURS
    assert image.with_suffix(".png").exists()


def test_a_calibrated_model_tells_what_is_unknown(model: Path, image: Path) -> None:
    calibrated = model.with_name("calibrated.safetensors")
    told = json.loads(run(calibrated, image, "--json", "-"))
    assert told["is_unknown"] == (told["ood_score"] < told["threshold"])
    other = json.loads(run(calibrated, image, "--json", "-", "--ood-method", "msp"))
    assert other["threshold"] is None
    assert other["ood_method"] == "msp"


def test_mistakes_end_in_one_sentence(model: Path, image: Path) -> None:
    assert "there is no output" in fails(model, image)
    assert "must end in" in fails(model, image, "--out", "maps.bmp")
    assert "is a folder" in fails(model, image.parent, "--json", "-")
    assert "there is no class 'blue see' (did you mean blue sea?)" in fails(
        model, image, "--json", "-", "--class", "blue see"
    )
    assert "can't read" in fails(model, image.with_name("other.jpg"), "--json", "-")
    image.with_suffix(".json").write_text("mine")
    assert "not a result of sotglp" in fails(model, image, "--out", image.with_suffix(".json"), "--force")
    assert image.with_suffix(".json").read_text() == "mine"


def test_a_method_without_a_plan_says_so(model: Path, image: Path) -> None:
    MethodClassifier("zero-shot", backbone="tiny").fit(model.parent).save(image.with_name("zero.safetensors"))
    assert "no transport plan" in fails(image.with_name("zero.safetensors"), image, "--json", "-")
