"""``fit --calibrate`` and what the other commands make of it, on a tiny backbone with random weights."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sotglp import SOTGLPClassifier, SotglpError
from sotglp.model_file.record import CalibrationRecord, read_record
from support.command import Run, sotglp
from support.samples import make_class_folders

BACKBONE = ["--backbone", "tiny", "--pretrained", "none", "--set", "augment=false", "--set", "batch_size=9"]
FIT = [*BACKBONE, "--shots", "4", "--epochs", "2"]

EXPECTED_WARNINGS = ("training ended near chance", "the same image has two labels")
"""Two epochs on random features are near chance, and :func:`data` gives an image two labels."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_class_folders(root / "train", per_class=4, seed=0)
    make_class_folders(root / "test", per_class=4, seed=1)
    make_class_folders(root / "others", per_class=2, seed=2)
    # Labels that no model agrees with, so that there is a temperature to find.
    for part in ("train", "test"):
        shutil.copy(root / part / "red_brick" / "0.png", root / part / "green leaf" / "0.png")
    return root


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    """Calibrated in folds, for a score that needs the shots."""
    out = data / "m.safetensors"
    options = ["--calibrate", "--tpr", "0.5", "--ood-method", "knn", "--json", data / "fit.json"]
    done = sotglp("fit", data / "train", "--out", out, *FIT, *options)
    assert [line for line in done.stderr.splitlines() if not any(part in line for part in EXPECTED_WARNINGS)] == []
    assert "; calibrated: 53.8% accepted (" in done.stdout  # 13 (1 - 0.5) = 6.5, so that 6 of 13 fail
    assert list(data.glob("m.safetensors.*")) == []
    return out


@pytest.fixture(scope="module")
def plain(data: Path) -> Path:
    """A model without a calibration or a memory of its shots."""
    out = data / "plain.safetensors"
    classifier = SOTGLPClassifier("tiny", "none", shots=None, epochs=1, augment=False, remember=False)
    classifier.fit(data / "train").save(out)
    return out


@pytest.fixture(scope="module")
def loaded(model: Path) -> SOTGLPClassifier:
    return SOTGLPClassifier.load(model)


def test_fit_calibrates_as_python_does(model: Path, data: Path, loaded: SOTGLPClassifier) -> None:
    settings: dict[str, Any] = {"shots": 4, "epochs": 2, "batch_size": 9, "augment": False}
    own = SOTGLPClassifier.from_preset("folder", backbone="tiny", pretrained="none", **settings).fit(data / "train")
    own.calibrate(data / "train", 0.5, "knn", folds=4)
    assert own.calibration_ is not None
    assert loaded.calibration_ is not None
    assert loaded.calibration_.rejection == own.calibration_.rejection
    assert loaded.calibration_.temperature == own.calibration_.temperature != 1
    np.testing.assert_array_equal(loaded.calibration_.folds, own.calibration_.folds)
    np.testing.assert_array_equal(loaded.calibration_.true_probabilities, own.calibration_.true_probabilities)
    assert own.calibration_.true_classes is not None
    for ours, theirs in zip(loaded.calibration_.true_classes or (), own.calibration_.true_classes, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    result = json.loads((data / "fit.json").read_text())["calibration"]
    record = read_record(model).calibration
    assert record is not None
    assert CalibrationRecord.model_validate(result) == record
    assert (result["n_folds"], result["ood_method"], result["rejection"]["n"]) == (4, "knn", 12)


def test_predict_rejects_unknown_images_and_gives_sets(model: Path, data: Path, loaded: SOTGLPClassifier) -> None:
    folder = data / "test"
    options = ["--coverage", "0.6", "--csv", data / "out.csv", "--json", data / "out.json"]
    done = sotglp("predict", model, folder, *options)
    result = json.loads((data / "out.json").read_text())
    rows = result["predictions"]
    assert [row["label"] for row in rows] == loaded.predict(folder).tolist()
    assert [row["label"] == "unknown" for row in rows] == loaded.is_ood(folder).tolist()
    assert [row["is_unknown"] for row in rows] == loaded.is_ood(folder).tolist()
    assert 0 < sum(row["label"] == "unknown" for row in rows) < 12
    probabilities = loaded.predict_proba(folder)
    classes = loaded.classes_.tolist()
    np.testing.assert_array_equal([[row["probabilities"][name] for name in classes] for row in rows], probabilities)
    np.testing.assert_array_equal([row["probability"] for row in rows], probabilities.max(axis=1))
    np.testing.assert_array_equal([row["ood_score"] for row in rows], loaded.ood_score(folder, "knn"))
    sets = loaded.predict_sets(folder, 0.6)
    assert [row["set"] for row in rows] == [loaded.classes_[members].tolist() for members in sets]
    assert 0 < sets.sum() < sets.size
    assert (result["ood_method"], result["temperature"]) == ("knn", 1)
    assert result["calibration"]["rejection"]["tpr"] == 0.5
    with open(data / "out.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["label"] for row in table] == [row["label"] for row in rows]
    assert [row["is_unknown"] for row in table] == [str(row["is_unknown"]).lower() for row in rows]
    assert [row["set"] for row in table] == ["; ".join(row["set"]) for row in rows]
    for line, row in zip(done.stdout.splitlines()[1:], rows, strict=False):
        assert line.endswith("  " + ("; ".join(row["set"]) or "empty"))
    assert f"below the threshold {result['threshold']:.4g} of knn" in done.stdout


def test_predict_without_those_options_names_a_class_for_each_image(
    model: Path, data: Path, loaded: SOTGLPClassifier, output_of: Run
) -> None:
    options = ["--ood-method", "mcm", "--temperature", "0.5", "--json", "-"]
    result = json.loads(output_of("predict", model, data / "test", *options))
    assert [row["label"] for row in result["predictions"]] == loaded.predict(data / "test", reject=False).tolist()
    assert all("set" not in row for row in result["predictions"])
    assert {row["is_unknown"] for row in result["predictions"]} == {None}  # the threshold is that of another score
    assert result["threshold"] is None
    scores = [row["ood_score"] for row in result["predictions"]]
    np.testing.assert_array_equal(scores, loaded.ood_score(data / "test", "mcm", 0.5))


def test_no_unknown_names_the_most_probable_class(
    model: Path, data: Path, loaded: SOTGLPClassifier, output_of: Run
) -> None:
    every = loaded.predict(data / "test", reject=False).tolist()
    rejected = loaded.is_ood(data / "test")
    text = output_of("predict", model, data / "test", "--no-unknown", "--json", data / "named.json")
    rows = json.loads((data / "named.json").read_text())["predictions"]
    assert [row["label"] for row in rows] == every
    assert [row["is_unknown"] for row in rows] == rejected.tolist()
    assert f"{rejected.sum()} images below the threshold" in text
    rows = json.loads(output_of("predict", model, data / "test", "--json", "-"))["predictions"]
    assert [row["most_probable"] for row in rows] == every
    assert [row["label"] == "unknown" for row in rows] == rejected.tolist()


def test_evaluate_judges_the_decisions(
    model: Path, data: Path, loaded: SOTGLPClassifier, tmp_path: Path, output_of: Run
) -> None:
    command = ["evaluate", model, data / "test", "--ood", data / "others", "--json", tmp_path / "j"]
    text = output_of(*command)
    found = json.loads((tmp_path / "j").read_text())
    labels = [path.parent.name for path in sorted((data / "test").glob("*/*.png"))]
    accepted = ~loaded.is_ood(data / "test")
    right = loaded.predict(data / "test", reject=False) == labels
    assert found["accuracy"] == right.mean()
    assert found["accepted"] == accepted.mean()
    assert found["accuracy_accepted"] == right[accepted].mean()
    assert found["ood"]["others"]["rejected"] == loaded.is_ood(data / "others").mean()
    assert found["ood_method"] == "knn"
    assert f", {found['ece_calibrated']:.3f} calibrated" in text
    assert "by the score knn" in text
    assert f"{found['accepted']:.1%}; accuracy on accepted images {right[accepted].mean():.1%}" in text
    (line,) = [line for line in text.splitlines() if line.startswith("others ")]
    assert line.split()[1::6] == ["6", f"{found['ood']['others']['rejected']:.1%}"]


def test_info_describes_the_calibration(model: Path, plain: Path, output_of: Run) -> None:
    about = json.loads(output_of("info", model, "--json", "-"))["calibration"]
    assert f"{about['rejection']['threshold']:.6g} (knn at temperature 1)" in output_of("info", model)
    assert json.loads(output_of("info", plain, "--json", "-"))["calibration"] is None
    assert "calibrated" not in output_of("info", plain)


def test_calibrating_on_other_images(model: Path, data: Path, tmp_path: Path, output_of: Run) -> None:
    root = shutil.copytree(data / "test", tmp_path / "test")
    broken = root / "blue sea" / "0.png"
    broken.write_bytes(b"broken")
    out = tmp_path / "m.safetensors"
    options = ["--calibrate-on", root, "--skip-unreadable", "--json", tmp_path / "j"]
    output_of("fit", data / "train", "--out", out, *FIT, *options)
    result = json.loads((tmp_path / "j").read_text())
    assert result["unreadable"] == [str(broken)]
    assert (result["calibration"]["rejection"]["n"], result["calibration"]["n_folds"]) == (11, 0)
    found = SOTGLPClassifier.load(out)
    assert found.calibration_ is not None
    before = found.calibration_.rejection
    broken.unlink()
    assert found.calibrate(root).calibration_.rejection == before
    assert "11 images in held-out images" in output_of("info", out)


@pytest.mark.parametrize("calibrator", ["platt", "isotonic"])
def test_other_maps_of_probabilities_are_kept_in_the_file(
    calibrator: str, data: Path, tmp_path: Path, output_of: Run, error_of: Run
) -> None:
    out = tmp_path / "m.safetensors"
    classifier = SOTGLPClassifier("tiny", "none", shots=None, epochs=8, augment=False).fit(data / "train")
    classifier.calibrate(data / "test", calibrator=calibrator).save(out)
    loaded = SOTGLPClassifier.load(out)
    found = loaded.predict_proba(data / "test")
    np.testing.assert_array_equal(found, classifier.predict_proba(data / "test"))
    assert (loaded.classes_[found.argmax(axis=1)] == classifier.predict(data / "test", reject=False)).all()
    assert loaded.calibration_ is not None
    assert loaded.calibration_.probability_map is not None
    assert loaded.calibration_.probability_map.kind == calibrator
    assert f"calibrated by {calibrator}" in output_of("info", out)
    output_of("predict", out, data / "test", "--json", tmp_path / "p")
    rows = json.loads((tmp_path / "p").read_text())["predictions"]
    np.testing.assert_allclose([row["probability"] for row in rows], found.max(axis=1), rtol=1e-5)
    assert "can't be exported" in error_of("export", out, "--out", tmp_path / "m.onnx")
    with pytest.raises(SotglpError, match="needs labels"):
        loaded.calibrate(data / "test" / "blue sea", calibrator=calibrator)


def test_calibrating_for_an_error_among_accepted_images(data: Path, tmp_path: Path, output_of: Run) -> None:
    out = tmp_path / "m.safetensors"
    bound = ["--max-error", "0.9", "--confidence", "0.5"]
    summary = output_of("fit", data / "train", "--out", out, *FIT, "--calibrate-on", data / "test", *bound)
    stated = "error among accepted images at most 90.0% with 50% confidence"
    assert stated in summary
    assert stated in output_of("info", out)
    record = read_record(out)
    assert record.calibration is not None
    test = record.calibration.rejection.accepted_error
    assert test is not None
    loaded = SOTGLPClassifier.load(out)
    accepted = ~loaded.is_ood(data / "test")
    labels = np.array([path.parent.name for path in sorted((data / "test").glob("*/*.png"))])
    assert accepted.sum() == test.n
    assert (loaded.predict(data / "test", reject=False) != labels)[accepted].sum() == test.n_wrong
    found = loaded.calibrate(data / "test", max_error=0.9, confidence=0.5)
    assert found.calibration_.rejection == record.calibration.rejection
    with pytest.raises(SotglpError, match="needs labels"):
        loaded.calibrate(data / "test" / "blue sea", max_error=0.9, confidence=0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--calibrate", "--calibrate-on", "TEST"], "--calibrate uses the shots and --calibrate-on other images"),
        (["--tpr", "0.9"], "--tpr is for calibration: give --calibrate"),
        (["--ood-method", "knn"], "--ood-method is for calibration: give --calibrate"),
        (["--max-error", "0.1"], "--max-error is for calibration: give --calibrate"),
        (["--calibrate", "--tpr", "0.9", "--max-error", "0.1"], "--tpr and --max-error both choose the threshold"),
        (["--calibrate", "--confidence", "0.8"], "--confidence is that of --max-error"),
        (["--calibrate", "--max-error", "0.1"], "12 calibration images can't bound .* give at least 45"),
        (["--calibrate", "--max-error", "1"], "max_error = 1.0 must be above 0"),
        (["--calibrator", "platt"], "--calibrator is for calibration: give --calibrate"),
        (["--calibrate", "--calibrator", "plat"], r"no calibrator 'plat' \(did you mean platt"),
        (["--calibrate", "--tpr", "0"], "tpr = 0.0 must be above 0"),
        (["--calibrate", "--tpr", "1.01"], "tpr = 1.01 must be above 0 and at most 1"),
        (["--calibrate", "--tpr", "nan"], "tpr = nan must be above 0"),
        (["--calibrate", "--ood-method", "oracle"], "ood_method = 'oracle'"),
        (["--calibrate", "--ood-method", "knn", "--set", "remember=false"], "remember=false doesn't keep"),
        (["--calibrate", "--shots", "1"], "'blue sea' has 1 image"),
        (["--calibrate-on", "absent"], "absent"),
        (["--calibrate-on", "TRAIN"], "is for calibration and is trained on too"),
        (["--calibrate-on", "NO_LABELS"], "the images for calibration can't be used: the images have no labels"),
        (["--calibrate-on", "STRANGE"], "the images for calibration can't be used: .*zebra"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_calibrations_that_cannot_be_made_are_refused_before_the_fit(
    options: list[str], words: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Run
) -> None:
    picture = data / "test" / "blue sea" / "0.png"
    (tmp_path / "no_labels.csv").write_text(f"path\n{picture}\n")
    (tmp_path / "strange.csv").write_text(f"path,label\n{picture},zebra\n")
    paths = {
        "TRAIN": data / "train",
        "TEST": data / "test",
        "NO_LABELS": tmp_path / "no_labels.csv",
        "STRANGE": tmp_path / "strange.csv",
    }
    monkeypatch.setattr("sotglp.cli.fit_model.adapt", None)
    out = tmp_path / "out" / "m.safetensors"
    command = ["fit", data / "train", "--out", out, *FIT, *(paths.get(option, option) for option in options)]
    error = error_of(*command)
    assert re.search(words, error), error
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_predict_gives_sets_of_other_kinds(model: Path, data: Path, loaded: SOTGLPClassifier) -> None:
    folder = data / "test"
    options = ["--coverage", "0.6", "--set-score", "raps", "--per-class", "--json", data / "raps.json"]
    sotglp("predict", model, folder, *options)
    rows = json.loads((data / "raps.json").read_text())["predictions"]
    sets = loaded.predict_sets(folder, 0.6, score="raps", per_class=True)
    assert [row["set"] for row in rows] == [loaded.classes_[members].tolist() for members in sets]


def test_decisions_that_were_not_calibrated_are_refused(model: Path, plain: Path, data: Path, error_of: Run) -> None:
    def refused(file: Path, *options: object) -> str:
        return error_of("predict", file, data / "test", *options)

    assert f"--unknown needs a calibrated model, but {plain} isn't calibrated" in refused(plain, "--unknown")
    assert "--coverage needs a calibrated model" in refused(plain, "--coverage", 0.9)
    assert "--set-score is for prediction sets" in refused(model, "--set-score", "aps")
    assert "--per-class is for prediction sets" in refused(model, "--per-class")
    assert "--per-cluster is for prediction sets" in refused(model, "--per-cluster")
    both = ("--coverage", 0.9, "--per-class", "--per-cluster")
    assert "--per-class and --per-cluster" in refused(model, *both)
    assert "no score of sets 'asp'" in refused(model, "--coverage", 0.9, "--set-score", "asp")
    assert "coverage = 1.5 must be above 0 and below 1" in refused(model, "--coverage", 1.5)
    assert "coverage = 0.0 must be above 0" in refused(model, "--coverage", 0)
    assert "applies to the score knn at temperature 1: leave --ood-method" in refused(
        model, "--unknown", "--ood-method", "mcm"
    )
    assert "compares images with the shots" in refused(plain, "--ood-method", "knn")


def test_sets_need_a_calibration_with_labels(plain: Path, data: Path, tmp_path: Path, error_of: Run) -> None:
    classifier = SOTGLPClassifier.load(plain)
    classifier.calibrate(data / "test" / "blue sea").save(tmp_path / "m")
    error = error_of("predict", tmp_path / "m", data / "test", "--coverage", "0.9")
    assert "prediction sets need a calibration with labels" in error


def test_a_new_run_forgets_the_folds_of_a_stopped_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Run
) -> None:
    """The state of a fold that the new run has not reached would otherwise stop the next --resume."""
    stale = tmp_path / "m.safetensors.checkpoint.fold1"
    stale.write_text("of other settings")
    (tmp_path / "m.safetensors.checkpoint").write_text("of other settings")

    def stopped(*_: Any, **__: Any) -> None:
        raise SotglpError("stopped here")

    monkeypatch.setattr("sotglp.cli.fit_model.cross_fit", stopped)
    command = ["fit", data / "train", "--out", tmp_path / "m.safetensors", *FIT, "--calibrate"]
    assert "stopped here" in error_of(*command, "--force")
    assert not stale.exists()
    # A resumed run keeps them.
    stale.write_text("of the same settings")
    assert "stopped here" in error_of(*command, "--resume")
    assert stale.exists()


@pytest.mark.slow
@pytest.mark.parametrize("cache", [["--no-cache"], ["--cache-dir", "cache"]], ids=str)
def test_two_processes_calibrate_as_one_does(model: Path, data: Path, tmp_path: Path, cache: list[str]) -> None:
    cache = [str(tmp_path / option) if option == "cache" else option for option in cache]
    options = ["--calibrate", "--tpr", "0.5", "--ood-method", "knn", "--num-processes", "2", *cache]
    done = sotglp("fit", data / "train", "--out", tmp_path / "m", *FIT, *options)
    assert [line for line in done.stderr.splitlines() if not any(part in line for part in EXPECTED_WARNINGS)] == []
    assert done.stdout.count("calibrated: 53.8% accepted") == 1
    one, two = (SOTGLPClassifier.load(path).calibration_ for path in (model, tmp_path / "m"))
    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(two.folds, one.folds)
    np.testing.assert_allclose(two.true_probabilities, one.true_probabilities, atol=2e-3)
    assert two.rejection.threshold == pytest.approx(one.rejection.threshold, abs=1e-3)
