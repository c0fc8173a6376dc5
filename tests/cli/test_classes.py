from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sotglp import SOTGLPClassifier
from sotglp.model_file.record import read_record
from support.command import Run, sotglp
from support.samples import COLOURS, coloured_image, make_class_folders

OLD = sorted(COLOURS)
QUICK = {"epochs": 2, "batch_size": 9, "augment": False, "shots": None, "workers": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    make_class_folders(root / "train", per_class=3)
    rng = np.random.default_rng(9)
    (root / "clouds").mkdir()
    for place in range(3):
        coloured_image(rng, (128, 128, 128)).save(root / "clouds" / f"{place}.png")
    return root


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    """A calibrated model on the package's own small backbone."""
    classifier = SOTGLPClassifier("tiny", **QUICK).fit(data / "train")
    classifier.calibrate(data / "train").save(data / "m.safetensors")
    return data / "m.safetensors"


def test_list(model: Path, output_of: Run) -> None:
    assert output_of("classes", "list", model).splitlines() == OLD
    assert json.loads(output_of("classes", "list", model, "--json", "-"))["classes"] == OLD


def test_add_rename_and_remove(model: Path, data: Path, tmp_path: Path, output_of: Run) -> None:
    before = model.read_bytes()
    grown = tmp_path / "grown.safetensors"
    images = (data / "clouds" / "0.png", data / "clouds")
    done = sotglp("classes", "add", model, "grey cloud", *images, "--others", data / "train", "--out", grown)
    assert done.stdout.startswith(f"{grown}: grey cloud is class 4; threshold")
    assert "recalibrated on 13 stored shots" in done.stdout
    assert read_record(grown).classes == [*OLD, "grey cloud"]
    assert read_record(grown).calibration.rejection.n == 13
    assert read_record(grown).training == read_record(model).training
    assert read_record(model).history
    assert not read_record(grown).history
    assert model.read_bytes() == before

    # In place, as --out and --force say together.
    result = json.loads(
        output_of("classes", "rename", grown, "grey cloud", "fog", "--out", grown, "--force", "--json", "-")
    )
    assert (result["classes"], result["renamed"], result["name"]) == ([*OLD, "fog"], "grey cloud", "fog")
    assert result["calibration"]["rejection"]["n"] == 13
    back = tmp_path / "back.safetensors"
    done = output_of("classes", "remove", grown, "fog", "--out", back, "--json", tmp_path / "out.json")
    assert done.startswith(f"{back}: 3 classes without fog; ")
    assert "9 stored shots" in done
    assert json.loads((tmp_path / "out.json").read_text())["removed"] == "fog"
    assert read_record(back).calibration.n_folds == 3


def test_stored_shots_stand_in_for_images_of_the_others(data: Path, tmp_path: Path, output_of: Run) -> None:
    plain, out = tmp_path / "plain.safetensors", tmp_path / "grown.safetensors"
    SOTGLPClassifier("tiny", **QUICK).fit(data / "train").save(plain)
    done = output_of("classes", "add", plain, "fog", data / "clouds", "--out", out)
    assert done == f"{out}: fog is class 4, fitted beside 9 stored shots of the others\n"
    assert len(SOTGLPClassifier.load(out).model_.shots.patches.rows) == 12


def test_epochs_can_be_chosen(data: Path, tmp_path: Path, output_of: Run) -> None:
    plain = tmp_path / "plain.safetensors"
    SOTGLPClassifier("tiny", **QUICK).fit(data / "train").save(plain)
    rows = {}
    for epochs in ((), ("--epochs", 1), ("--epochs", 2)):
        out = tmp_path / f"{len(rows)}.safetensors"
        output_of("classes", "add", plain, "fog", data / "clouds", "--out", out, "--no-cache", *epochs)
        rows[epochs] = SOTGLPClassifier.load(out).model_.local_prompts.detach()
    assert (rows["--epochs", 2] == rows[()]).all()  # those of the fit
    assert (rows["--epochs", 1] != rows[()]).any()


def test_unreadable_images_are_left_out_and_named(model: Path, data: Path, tmp_path: Path, output_of: Run) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    command = ("add", model, "fog", data / "clouds", bad, "--out", tmp_path / "m.safetensors")
    refused = sotglp("classes", *command, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"sotglp: error: can't read {bad}: it is empty" in refused.stderr
    result = json.loads(output_of("classes", *command, "--skip-unreadable", "--json", "-"))
    assert result["unreadable"] == [str(bad)]


def test_a_carried_backbone_stays_in_the_file(data: Path, tmp_path: Path, output_of: Run) -> None:
    classifier = SOTGLPClassifier("tiny", **QUICK).fit(data / "train")
    carrying = tmp_path / "m.safetensors"
    classifier.save(carrying, include_backbone=True)
    output_of("classes", "remove", carrying, OLD[0], "--out", tmp_path / "less.safetensors")
    assert (tmp_path / "less.safetensors").stat().st_size == pytest.approx(carrying.stat().st_size, rel=0.05)


def test_classes_that_are_numbers(data: Path, tmp_path: Path, error_of: Run, output_of: Run) -> None:
    files = sorted((data / "train").glob("*/*.png"))
    numbers = [10 * OLD.index(file.parent.name) for file in files]
    path = tmp_path / "m.safetensors"
    SOTGLPClassifier("tiny", **QUICK).fit(files, numbers).save(path)
    out = tmp_path / "more.safetensors"
    assert "numbers, not 'fog'" in error_of("classes", "add", path, "fog", data, "--out", out)
    output_of("classes", "add", path, "7", data / "clouds", "--out", out)
    assert read_record(out).classes == [0, 10, 20, 7]
    output_of("classes", "rename", out, "10", "5", "--out", out, "--force")
    assert read_record(out).classes == [0, 5, 20, 7]


def test_mistakes_are_refused(model: Path, data: Path, tmp_path: Path, error_of: Run) -> None:
    before, out = model.read_bytes(), tmp_path / "m.safetensors"
    for command in (
        ("add", model, "fog", data / "clouds"),
        ("remove", model, OLD[0]),
        ("rename", model, OLD[0], "lake"),
    ):
        assert f"{model} exists: give another name, or --force" in error_of("classes", *command, "--out", model)
    assert "already has a class 'blue sea'" in error_of(
        "classes", "add", model, "blue sea", data / "clouds", "--out", out
    )
    assert "did you mean blue sea?" in error_of("classes", "remove", model, "blue see", "--out", out)
    assert "give the same prompt" in error_of("classes", "rename", model, "blue sea", "GREEN  leaf", "--out", out)
    assert "has no images in it" in error_of("classes", "add", model, "fog", tmp_path, "--out", out)
    assert "there is no model file" in error_of("classes", "list", tmp_path / "none.safetensors")
    assert "epochs = 0 can't be used" in error_of(
        "classes", "add", model, "fog", data / "clouds", "--epochs", 0, "--out", out
    )
    Image.new("RGB", (4, 4)).save(tmp_path / "flat.png")
    assert "has images but no class folders" in error_of(
        "classes", "add", model, "fog", data / "clouds", "--others", tmp_path, "--out", out
    )
    assert not out.exists()
    assert model.read_bytes() == before
