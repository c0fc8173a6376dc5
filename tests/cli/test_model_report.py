from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_curve

from support.command import Run, sotglp
from support.report_samples import Page
from support.samples import make_class_folders

FIT = ["--backbone", "tiny", "--shots", "6", "--epochs", "2", "--set", "augment=false", "--no-cache"]
MOST_BYTES = 597_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_class_folders(root / "train", per_class=6, seed=0)
    make_class_folders(root / "test", per_class=4, seed=1)
    make_class_folders(root / "a & <b>", per_class=2, seed=2)
    make_class_folders(root / "others", per_class=3, seed=3)
    return root


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    out = data / "m.safetensors"
    sotglp("fit", data / "train", "--out", out, *FIT, "--calibrate-on", data / "others")
    return out


def test_a_report_as_a_process(model: Path, data: Path, tmp_path: Path, output_of: Run) -> None:
    out = tmp_path / "deep" / "r.html"
    sets = ("--ood", data / "a & <b>", "--ood", data / "others")
    done = sotglp("report", model, data / "test", *sets, "--out", out, "--json", tmp_path / "r.json")
    assert done.stderr == ""
    result = json.loads((tmp_path / "r.json").read_text())
    assert done.stdout.startswith(f"{out}: accuracy {result['accuracy']:.1%} (95% interval ")
    rows = result["images"]
    counts = confusion_matrix(
        [row["label"] for row in rows], [row["predicted"] for row in rows], labels=result["classes"]
    )
    assert {(one["label"], one["predicted"], one["count"]) for one in result["confusion"]} == {
        (result["classes"][row], result["classes"][column], counts[row, column])
        for row, column in zip(*counts.nonzero(), strict=True)
    }
    assert result["accuracy"] == np.trace(counts) / 12
    for one in result["ood"].values():
        is_in = [True] * 12 + [False] * one["n"]
        fpr, tpr, _ = roc_curve(is_in, np.float32([row["ood_score"] for row in rows] + one["scores"]))
        assert one["roc"] == {"fpr": pytest.approx(fpr), "tpr": pytest.approx(tpr)}
    assert result["versions"]["sotglp"]
    taken = Page(out.read_bytes())
    assert list(result["ood"]) == ["a & <b>", "others"]
    for name, one in result["ood"].items():
        assert f"AUROC, {name} {one['auroc']:.3f}" in taken.section("headline")
    # The evaluation says the same.
    evaluated = json.loads(output_of("evaluate", model, data / "test", *sets, "--json", "-"))
    for name in ("accuracy", "ece", "ece_calibrated", "accepted", "n"):
        assert evaluated[name] == pytest.approx(result[name])
    assert evaluated["ood"]["others"]["auroc"] == result["ood"]["others"]["auroc"]


def test_the_command_on_the_page_makes_the_page(
    model: Path, data: Path, tmp_path: Path, error_of: Run, output_of: Run
) -> None:
    out = tmp_path / "r.html"
    given = ("--ood", data / "a & <b>", "--ood-method", "energy", "--temperature", "2", "--batch-size", "5")
    output_of("report", model, data / "test", *given, "--out", out)
    page = out.read_bytes()
    reproduce = Page(page).section("reproduce")
    command = reproduce[reproduce.index("sotglp report") : reproduce.index(" Test images from")]
    out.write_text("mine")
    assert f"{out} exists" in error_of(*shlex.split(command)[1:])
    output_of(*shlex.split(command)[1:], "--force")
    assert out.read_bytes() == page
    assert "Scores (energy, temperature 2.0)" in Page(page).section("ood")


def test_unreadable_images(model: Path, tmp_path: Path, error_of: Run, output_of: Run) -> None:
    test = make_class_folders(tmp_path / "test", per_class=2)
    (test / "green leaf" / "0.png").write_bytes(b"broken")
    out = tmp_path / "r.html"
    assert "can't read" in error_of("report", model, test, "--out", out)
    assert not out.exists()
    output_of("report", model, test, "--out", out, "--skip-unreadable")
    assert "1 image could not be read" in Page(out.read_bytes()).section("headline")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "--out", "r.html"], "is a model: give labelled images"),
        (["{model}", "{test}", "--svg", "--out", "r.html"], "--svg is for the report of a benchmark"),
        (["{results}", "{test}", "--out", "r"], "a second argument is for the report of a model"),
        *[
            (["{results}", *option.split(), "--out", "r"], f"{option.split()[0]} is for the report of a model")
            for option in (
                "--ood {test}",
                "--ood-method msp",
                "--device cpu",
                "--workers 1",
                "--batch-size 8",
                "--skip-unreadable",
            )
        ],
        (["no.safetensors", "{test}", "--out", "r.html"], "there is no model file no.safetensors"),
        (["{model}", "no_folder", "--out", "r.html"], "no_folder"),
        (["{model}", "{test}", "--ood", "no_folder", "--out", "r.html"], "no_folder"),
        (["{model}", "{test}", "--ood-method", "best", "--out", "r.html"], "ood_method = 'best' can't be used"),
        (["{model}", "{test}", "--out", "{test}"], "is a folder: give the name of a file"),
    ],
)
def test_mistakes_end_in_one_sentence(
    arguments: list[str],
    message: str,
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_of: Run,
) -> None:
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    places = {"model": model, "test": data / "test", "results": tmp_path / "results"}
    assert message in error_of("report", *(one.format(**places) for one in arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.mark.slow
def test_a_report_on_500_photos_is_small(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    test = tmp_path / "test"
    for name in ("blue sea", "green leaf", "red_brick"):
        (test / name).mkdir(parents=True)
    for place in range(500):
        # Rough pictures, which JPEG can't make small, and larger than what a page shows.
        noise = Image.fromarray(rng.integers(0, 255, (225, 300, 3), np.uint8)).resize((600, 450))
        noise.save(test / ("blue sea", "green leaf", "red_brick")[place % 3] / f"{place}.jpg", quality=70)
    out = tmp_path / "r.html"
    sotglp("report", model, test, "--ood", test, "--out", out, "--json", tmp_path / "r.json")
    assert len(json.loads((tmp_path / "r.json").read_text())["images"]) == 500
    assert len(Page(out.read_bytes()).of("image")) >= 12
    assert out.stat().st_size < MOST_BYTES
