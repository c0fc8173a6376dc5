from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from support.command import Run, kill_when, sotglp
from support.samples import COLOURS, make_class_folders

# The smallest built-in backbone, with random weights, as fast as it goes.
BACKBONE = ["--backbone", "ViT-S-32-alt", "--pretrained", "none", "--image-size", "64", "--set", "top_k=3"]
FIT = [*BACKBONE, "--shots", "6", "--epochs", "3", "--set", "augment=false", "--set", "batch_size=9"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_class_folders(root / "train", per_class=6, seed=0)
    make_class_folders(root / "test", per_class=4, seed=1)
    make_class_folders(root / "others", per_class=2, seed=2)
    return root


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    out = data / "m.safetensors"
    done = sotglp("fit", data / "train", "--out", out, *FIT)
    assert done.stderr == ""
    assert "3 classes from 18 images, 3 epochs" in done.stdout
    assert not out.with_name("m.safetensors.checkpoint").exists()
    return out


def test_evaluate(model: Path, data: Path) -> None:
    command = ("evaluate", model, data / "test", "--ood", data / "others", "--json")
    done = sotglp(*command, data / "result.json")
    result = json.loads((data / "result.json").read_text())
    assert result["n"] == 12
    assert set(result["ood"]["others"]) == {"auroc", "fpr95", "aupr_in", "aupr_out", "detection_error", "oscr", "n"}
    assert all(0 <= result[name] <= 1 for name in ("accuracy", "accuracy_global", "accuracy_local", "ece"))
    low, high = result["accuracy_interval"]
    assert low <= result["accuracy"] <= high
    assert result["chance"] == pytest.approx(1 / 3)
    assert sum(row["correct"] for row in result["per_class"]) == round(result["accuracy"] * 12)
    assert f"{result['accuracy']:.1%} (95% interval {low:.1%} to {high:.1%}, chance 33.3%) on 12 images" in done.stdout
    assert f"by the score {result['ood_method']}" in done.stdout
    assert result["versions"]["sotglp"]
    # The same again, on standard output, replaces nothing and says nothing else.
    assert json.loads(sotglp(*command, "-").stdout) == result


def test_predict(model: Path, data: Path) -> None:
    image = data / "test" / "blue sea" / "0.png"
    target = data / "out.csv"
    done = sotglp("predict", model, image, data / "others", "--csv", target, "--json", data / "out.json")
    predictions = json.loads((data / "out.json").read_text())["predictions"]
    assert len(predictions) == 7
    assert predictions[0]["path"] == str(image)
    assert set(predictions[0]["probabilities"]) == set(COLOURS)
    assert predictions[0]["probability"] == max(predictions[0]["probabilities"].values())
    with open(target, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [row["label"] for row in predictions]
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["image", "class", "probability", "gl-mcm"]
    assert lines[0].split()[-2:] == [f"{predictions[0]['probability']:.1%}", f"{predictions[0]['ood_score']:.4f}"]
    assert lines[7:9] == ["", "7 images:"]
    text = sotglp("predict", model, image, "--top", "3").stdout
    ranked = sorted(predictions[0]["probabilities"].items(), key=lambda one: -one[1])
    assert ", ".join(f"{name} {value:.1%}" for name, value in ranked) in text
    assert "1 image:" in text


def test_info(model: Path, tmp_path: Path) -> None:
    text = sotglp("info", model).stdout
    assert "kind sot-glp" in text
    assert "ViT-S-32-alt, random weights, 64 pixels" in text
    about = json.loads(sotglp("info", model, "--json", "-").stdout)
    assert about["classes"] == sorted(COLOURS)
    assert about["training"]["epochs"] == 3
    assert json.loads(sotglp("info", "--presets", "--json", "-").stdout)["presets"]["dtd"]["training"]["epochs"] == 200
    assert json.loads(sotglp("info", "--json", "-").stdout)["versions"]["torch"]


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ("--epochs 40 --set views=2", ".checkpoint"),
        pytest.param("--epochs 10 --set augment=false --calibrate", ".checkpoint.fold1", marks=pytest.mark.slow),
    ],
)
def test_a_killed_fit_resumes_to_the_same_file(options: str, state: str, data: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    long = [*BACKBONE, "--shots", "6", "--set", "batch_size=9", *options.split()]
    sotglp("fit", data / "train", "--out", whole, *long)
    command = ["fit", data / "train", "--out", cut, *long]
    kill_when(cut.with_name(cut.name + state).exists, *command)
    assert not cut.exists()
    refused = sotglp(*command, check=False)
    assert refused.returncode == 2
    assert "holds an interrupted run" in refused.stderr
    sotglp(*command, "--resume")
    assert cut.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.safetensors", "whole.safetensors"]


def test_encoded_views_are_kept_for_the_next_run(model: Path, data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second, third = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "third"))
    sotglp("fit", data / "train", "--out", first, *FIT, "--cache-dir", cache)
    entries = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    assert len(entries) == 18
    sotglp("fit", data / "train", "--out", second, *FIT, "--cache-dir", cache)
    assert entries == {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    sotglp("fit", data / "train", "--out", third, *FIT, "--no-cache")
    assert first.read_bytes() == second.read_bytes() == third.read_bytes() == model.read_bytes()
    listed = json.loads(sotglp("cache", "list", "--cache-dir", cache, "--json", "-").stdout)
    assert [group["n_entries"] for group in listed["groups"]] == [18]


def test_evaluation_from_kept_features(model: Path, data: Path, tmp_path: Path) -> None:
    command = ["evaluate", model, data / "test", "--ood", data / "others", "--json", "-"]
    plain = json.loads(sotglp(*command).stdout)
    for _ in range(2):
        kept = json.loads(sotglp(*command, "--cache-dir", tmp_path / "cache").stdout)
        assert kept["accuracy"] == plain["accuracy"]
        assert kept["ood"]["others"]["auroc"] == pytest.approx(plain["ood"]["others"]["auroc"], abs=0.02)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 12 + 6


def test_fit_in_two_processes(model: Path, data: Path, tmp_path: Path) -> None:
    alone = json.loads(sotglp("info", model, "--json", "-").stdout)["history"]
    train = tmp_path / "train"
    shutil.copytree(data / "train", train)
    (train / "notes.txt").touch()
    done = sotglp("fit", train, "--out", tmp_path / "m", *FIT, "--num-processes", 2, "--json", tmp_path / "j")
    assert done.stderr.count("warning") == done.stderr.count("1 file ending in .txt") == 1
    assert done.stdout.count("3 classes from 18 images") == 1
    both = json.loads((tmp_path / "j").read_text())["history"]
    assert [epoch["loss"] for epoch in both] == pytest.approx([epoch["loss"] for epoch in alone], rel=1e-5)
    (tmp_path / "bad").mkdir()
    refused = sotglp("fit", tmp_path / "bad", "--out", tmp_path / "n", *FIT, "--num-processes", 2, check=False)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    late = sotglp(
        "fit", data / "train", "--out", tmp_path / "n", *FIT, "--set", "top_k=1000", "--num-processes", 2, check=False
    )
    assert late.returncode == 2
    assert {line[:41] for line in late.stderr.splitlines()} == {"sotglp: error: top_k = 1000 exceeds the 4"}


def test_a_default_cache_that_cannot_be_written_is_a_warning(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Run
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOTGLP_CACHE", str(tmp_path / "file" / "cache"))
    done = sotglp("fit", data / "train", "--out", tmp_path / "m", *FIT)
    assert done.stderr.startswith(f"sotglp: warning: {tmp_path / 'file' / 'cache'} can't be written")
    error = error_of(
        "fit",
        data / "train",
        "--out",
        tmp_path / "n",
        *FIT,
        "--cache-dir",
        tmp_path / "file" / "cache",
    )
    assert "use --no-cache" in error
    both = ["--cache-dir", tmp_path / "c", "--no-cache"]
    command = ("fit", data / "train", "--out", tmp_path / "n", *FIT, *both)
    assert "exclude each other" in error_of(*command)


def test_unreadable_images_are_named_or_skipped(model: Path, tmp_path: Path) -> None:
    root = make_class_folders(tmp_path / "test", per_class=2)
    broken = root / "red_brick" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    done = sotglp("evaluate", model, root, check=False)
    assert done.returncode == 2
    assert str(broken) in done.stderr
    assert "Traceback" not in done.stderr
    done = sotglp("evaluate", model, root, "--skip-unreadable", "--json", tmp_path / "r.json")
    assert str(broken) in done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["n"] == 5
    assert result["unreadable"] == [str(broken)]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = sotglp("info", tmp_path / "absent", "--debug", check=False)
    assert "Traceback" in done.stderr
    assert done.returncode != 0


BAD_TRAINING_DATA: dict[str, str] = {
    "absent": "absent",
    "empty": "empty",
    "one_class": "at least two classes",
    "same_names": "give the same prompt",
    "long_name": "tokens, but the text tower allows",
}


@pytest.fixture(scope="module")
def bad_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad")
    (root / "empty").mkdir()
    source = make_class_folders(root / "good", per_class=2)
    for folder, names in {
        "one_class": ["cat"],
        "same_names": ["sea_lion", "Sea lion"],
        "long_name": ["cat", "x " * 80],
    }.items():
        for name in names:
            (root / folder / name).mkdir(parents=True)
            for file in (source / "blue sea").iterdir():
                (root / folder / name / file.name).write_bytes(file.read_bytes())
    return root


@pytest.mark.parametrize("name", BAD_TRAINING_DATA)
def test_training_data_that_cannot_be_used(name: str, bad_data: Path, tmp_path: Path, error_of: Run) -> None:
    error = error_of("fit", bad_data / name, "--out", tmp_path / "m.safetensors", *BACKBONE)
    assert BAD_TRAINING_DATA[name] in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backbone", "ViT-B-61"], "did you mean ViT-B-16"),
        (["--backbone", "swin_base_patch4_window7_224"], "isn't supported"),
        (["--backbone", "ViT-B-16", "--pretrained", "openia"], "did you mean openai"),
        (["--pretrained", "openai"], "name it, such as --backbone ViT-B-16"),
        (["--preset", "caltech"], "no preset 'caltech'"),
        (["--shots", "0"], "shots = 0"),
        (["--set", "top_k"], "--set NAME=VALUE"),
        (["--set", "top_k=many"], "top_k = 'many'"),
        (
            ["--backbone", "ViT-S-32-alt", "--pretrained", "none", "--set", "top_k=50"],
            "top_k = 50 exceeds the 49 patches",
        ),
        (["--set", "topk=3"], "did you mean top_k"),
        (["--device", "abacus"], "device 'abacus'"),
        (["--json", "."], "is a folder"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(options: list[str], words: str, data: Path, tmp_path: Path, error_of: Run) -> None:
    error = error_of("fit", data / "train", "--out", tmp_path / "m.safetensors", *options)
    assert words in error
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_would_lose_something(model: Path, data: Path, tmp_path: Path, error_of: Run) -> None:
    precious = tmp_path / "precious.json"
    precious.write_text("{}")
    before = model.read_bytes()
    assert "exists" in error_of("fit", data / "train", "--out", model, *FIT)
    target = precious / "m.safetensors"
    assert "can't be written" in error_of("fit", data / "train", "--out", target, *FIT)
    for command in (("evaluate", model, data / "test"), ("predict", model, data / "test"), ("info",)):
        assert "not a result of sotglp" in error_of(*command, "--json", precious)
    assert precious.read_text() == "{}"
    assert model.read_bytes() == before


def test_models_that_cannot_be_used(model: Path, data: Path, tmp_path: Path, error_of: Run) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(model.read_bytes()[:500])
    assert "damaged" in error_of("evaluate", cut, data / "test")
    assert "no model file" in error_of("predict", tmp_path / "absent", data / "test")
    assert "ood_method = 'oops'" in error_of("predict", model, data / "test", "--ood-method", "oops")
