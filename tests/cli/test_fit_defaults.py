"""What commands take where the user names neither backbone nor settings, and what a fit says of its end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sotglp import SOTGLPClassifier
from sotglp.backbone_defaults import CLIP, HUB_FILES, HUB_REPOSITORY, PHOTO, training_defaults
from sotglp.model_file.record import read_record
from support.command import Run, run_here, sotglp
from support.hub_cache import cached_file

WARNING = "sotglp: warning: "
TINY = ["--backbone", "tiny", "--no-cache", "--shots", "6", "--set", "augment=false"]
QUICK = ["--no-cache", "--epochs", "1", "--shots", "2", "--set", "augment=false"]


@pytest.fixture
def tiny_for_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Painted shapes in place of photos: the smaller model, with settings of its own."""
    monkeypatch.setattr("sotglp.backbone_defaults.PHOTO", "tiny")
    monkeypatch.setattr("sotglp.backbone_defaults.backbones_with_defaults", lambda: ["tiny"])
    values = {"learning_rate": 0.03, "epochs": 2, "augment": False, "method": "sot-glp-gda"}
    monkeypatch.setattr("sotglp.backbone_defaults.read_packaged", lambda *_: dict(values))


def planned(*arguments: object, cache: Path | None = None, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """Plan of a benchmark, which loads no backbone, and standard error."""
    if cache:
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    done = sotglp("benchmark", *arguments, "--dry-run", "--json", "-")
    return json.loads(done.stdout), done.stderr


def test_a_process_takes_photo_and_says_so_or_clip_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, stderr = planned("folder", monkeypatch=monkeypatch)
    assert plan["suite"]["backbone"]["name"] == PHOTO
    assert stderr.startswith(WARNING)
    assert len(stderr.splitlines()) == 1
    (of_sot_glp, *_) = (cell for cell in plan["cells"] if cell["cell"]["method"] == "sot-glp")
    assert training_defaults(PHOTO).items() <= of_sot_glp["settings"]["training"].items()

    cached_file(tmp_path, HUB_REPOSITORY, HUB_FILES[0])
    plan, stderr = planned("folder", cache=tmp_path, monkeypatch=monkeypatch)
    assert (plan["suite"]["backbone"]["name"], stderr) == (CLIP, "")
    assert plan["cells"][0]["settings"]["training"]["learning_rate"] == 0.005


def test_suites_of_published_results_name_their_backbone(output_of: Run) -> None:
    plan = json.loads(output_of("benchmark", "few-shot", "--dry-run", "--json", "-"))
    assert plan["suite"]["backbone"]["name"] == CLIP


@pytest.mark.usefixtures("tiny_for_photo")
def test_a_model_file_holds_what_auto_stood_for(
    class_folders: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    output_of: Run,
) -> None:
    out, mine = tmp_path / "m.safetensors", tmp_path / "mine.yaml"
    _, stderr = run_here(capsys, monkeypatch, "fit", class_folders, "--out", out, "--no-cache", "--shots", "2")
    assert len([line for line in stderr.splitlines() if line.startswith(WARNING) and CLIP in line]) == 1
    record = read_record(out)
    assert record.backbone["name"] == "tiny"
    assert record.training is not None
    assert (record.model.residual, record.classes) == ("gda", sorted(folder.name for folder in class_folders.iterdir()))
    found = (record.training.learning_rate, record.training.epochs, record.training.augment, record.training.views)
    assert found == (0.03, 2, False, 2)
    assert re.search(r"learning_rate +0\.03 ", output_of("info", out))
    # A preset and an option win.
    mine.write_text(yaml.safe_dump({"training": {"learning_rate": 0.01, "views": 1}}))
    output_of("fit", class_folders, "--out", out, "--force", *QUICK, "--preset", mine, "--set", "augment=true")
    changed = read_record(out).training
    assert changed is not None
    assert (changed.learning_rate, changed.epochs, changed.augment, changed.views) == (0.01, 1, True, 1)
    assert read_record(out).model.residual == "gda"
    output_of("fit", class_folders, "--out", out, "--force", *QUICK, "--method", "sot-glp")
    assert read_record(out).model.residual is None


@pytest.mark.usefixtures("tiny_for_photo")
def test_few_shots_are_calibrated_by_the_general_score(
    class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"epochs": 1, "augment": False, "ood_method": "mahalanobis"}
    monkeypatch.setattr("sotglp.backbone_defaults.read_packaged", lambda *_: dict(values))
    out = tmp_path / "m.safetensors"
    arguments = ("fit", class_folders, "--out", out, "--no-cache", "--shots", "2", "--calibrate")
    run_here(capsys, monkeypatch, *arguments)
    record = read_record(out)
    assert record.calibration is not None
    assert (record.calibration.ood_method, record.default_ood_method) == ("gl-mcm", "mahalanobis")
    classifier = SOTGLPClassifier.load(out)
    assert classifier.calibrate(class_folders, folds=2).calibration_.ood_method == "gl-mcm"
    _, stderr = run_here(capsys, monkeypatch, *arguments, "--ood-method", "mahalanobis", "--force")
    assert "gl-mcm" in stderr


@pytest.mark.usefixtures("tiny_for_photo")
def test_label_doubts_take_the_same_backbone(
    class_folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = ("data", "check", class_folders, "--no-cache")
    assert CLIP in run_here(capsys, monkeypatch, *checked)[1]
    assert run_here(capsys, monkeypatch, *checked, "--skip-labels")[1] == ""


def test_a_fit_that_ends_near_chance_says_so(
    class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same six images in each class, by their labels alone: nothing can be learned.
    (source, *others) = sorted(class_folders.iterdir())
    for folder in others:
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    out, stderr = run_here(
        capsys, monkeypatch, "fit", class_folders, "--out", tmp_path / "m.safetensors", *TINY, "--epochs", "2"
    )
    assert "3 classes" in out
    (line,) = [line for line in stderr.splitlines() if "two labels" not in line]
    assert line.startswith(WARNING)
    assert "chance 33.3%" in line
    assert "learning rate" in line


def test_a_fit_that_learns_says_nothing(
    class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learns = (*TINY, "--set", "learning_rate=0.1", "--epochs", "10")
    _, stderr = run_here(capsys, monkeypatch, "fit", class_folders, "--out", tmp_path / "m.safetensors", *learns)
    assert stderr == ""


def test_common_settings_have_options(class_folders: Path, tmp_path: Path, output_of: Run, error_of: Run) -> None:
    out = tmp_path / "m.safetensors"
    chosen = ["--lr", "0.02", "--views", "1", "--template", "a drawing of {}"]
    output_of("fit", class_folders, "--out", out, *QUICK, *chosen)
    record = read_record(out)
    assert record.training is not None
    assert (record.training.learning_rate, record.training.views) == (0.02, 1)
    assert record.model.model_dump()["template"] == "a drawing of {}"
    command = ("fit", class_folders, "--out", tmp_path / "n", *QUICK)
    for synonym, name in {"lr": "learning_rate", "num-epochs": "epochs", "dropout": "prompt_dropout"}.items():
        assert f"did you mean {name}?" in error_of(*command, "--set", f"{synonym}=1")


def test_help_lists_options_in_groups(output_of: Run) -> None:
    text = output_of("fit", "--help")
    for title in ("Model", "Images", "Confidence and unknown images", "Output", "Computation"):
        assert f"\u2500 {title} \u2500" in text
