import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from sotglp import SotglpError
from sotglp.demo import comparison, painted, photo_comparison, photographs
from sotglp.demo.comparison import draw_shots_of_task
from sotglp.demo.photo_set import PhotoSets, load_photos, packaged_photos
from sotglp.demo.task import few_shot_task
from sotglp.images.image_set import ImageSet
from sotglp.model_file.load import load_model

OFFLINE = """
import os, socket, sys
def refuse(*_, **__):
    print("asked for the network", file=sys.stderr, flush=True)
    os._exit(99)  # an exception could be caught, and the attempt go unseen
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from sotglp.cli import main
sys.argv = ["sotglp", *sys.argv[1:]]
main()
"""


FITTED = list(photo_comparison.METHODS)[-1]
"""The method of the demo's model."""


def run(*arguments, check=True, cwd=None):
    command = [sys.executable, "-c", OFFLINE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0 or not check, done.stderr
    return done


@pytest.mark.slow
def test_the_demo_runs_offline_and_so_do_the_commands_that_it_names(tmp_path):
    out = tmp_path / "a demo"  # commands that name it have to quote it
    done = run("demo", "--out", out)
    result = json.loads((out / "result.json").read_text())
    assert list(result["methods"]) == list(photo_comparison.METHODS)
    commands = [shlex.split(line)[1:] for line in done.stdout.splitlines() if line.startswith("  sotglp ")]
    assert [command[0] for command in commands] == ["predict", "explain", "fit"]
    commands[2] += ["--epochs", "2"]  # as it stands, it fits the model six times
    predicted, _, fitted = (run(*command, cwd=tmp_path).stdout for command in commands)
    n_unknown = result["methods"][FITTED]["ood"]["unknown"]["n"]
    assert f"\n{n_unknown} images:\n" in predicted
    with Image.open(out / "explained.png") as picture:
        assert picture.format == "PNG"
    assert "8 classes from 128 images" in fitted
    # Read from files again, the model is as right as it was.
    photos = out / "photos"
    evaluated = run("evaluate", out / "model.safetensors", photos / "test", "--ood", photos / "unknown").stdout
    found = result["methods"][FITTED]
    assert re.search(rf"^accuracy +{found['accuracy']:.1%} ", evaluated, re.MULTILINE)
    assert re.search(rf"^unknown +\d+ +{found['ood']['unknown']['auroc']:.3f} ", evaluated, re.MULTILINE)
    refused = run("demo", "--out", out, check=False)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_the_painted_demo_runs_offline_and_so_do_the_commands_that_it_names(tmp_path):
    out = tmp_path / "a demo"
    done = run("demo", "--painted", "--out", out)
    result = json.loads((out / "result.json").read_text())
    assert list(result["methods"]) == [method.name for method in comparison.METHODS]
    for name, one in result["methods"].items():
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"{name:24}"))
        assert f"{one['accuracy']:.3f}" in line
        assert f"{one['ood']['far']['auroc']:.3f}" in line
    assert result["methods"]["SOT-GLP"]["accuracy"] > result["methods"]["zero-shot"]["accuracy"]
    assert (out / "plan.png").stat().st_size > 20_000
    with safe_open(out / "model.safetensors", "pt") as file:
        assert "local_prompts" in set(file.keys())
    load_model(out / "model.safetensors")
    commands = [shlex.split(line)[1:] for line in done.stdout.splitlines() if line.startswith("  sotglp ")]
    assert [command[0] for command in commands] == ["predict", "evaluate", "fit"]
    predicted, evaluated, fitted = (run(*command, cwd=tmp_path).stdout for command in commands)
    assert "\n300 images:\n" in predicted
    # Read from files again, the model is as right as it was.
    assert re.search(rf"^accuracy +{result['methods']['SOT-GLP']['accuracy']:.1%} ", evaluated, re.MULTILINE)
    assert re.search(rf"^far +\d+ +{result['methods']['SOT-GLP']['ood']['far']['auroc']:.3f} ", evaluated, re.MULTILINE)
    assert "20 classes from 320 images" in fitted
    assert (tmp_path / "mine.safetensors").exists()


@pytest.fixture
def small(monkeypatch):
    """The demo on painted shapes with the fewest pictures and steps."""
    monkeypatch.setattr(painted, "SHOTS", 1)
    monkeypatch.setattr(painted, "TEST_PER_CLASS", 1)
    monkeypatch.setattr(painted, "N_OTHERS", 6)
    monkeypatch.setattr(painted, "SHOWN", 2)
    monkeypatch.setattr(painted, "SETTINGS", painted.SETTINGS.model_copy(update={"epochs": 1, "views": 1}))


@pytest.fixture
def few_photos(monkeypatch):
    """The demo on photographs with the smallest model, and the fewest photos and steps."""
    settings = photographs.training_settings().model_copy(update={"epochs": 1, "augment": False})

    def load_few(root):
        train, test, unknown = load_photos(root)
        return PhotoSets(train, test.take(range(0, len(test), 10)), unknown.take(range(6)))

    monkeypatch.setattr(photographs, "BACKBONE", "tiny")
    monkeypatch.setattr(photographs, "SHOTS", 1)
    monkeypatch.setattr(photographs, "SHOWN", photographs.SHOWN[:2])
    monkeypatch.setattr(photographs, "training_settings", lambda: settings)
    monkeypatch.setattr(photographs, "load_photos", load_few)


@pytest.fixture
def idle(monkeypatch):
    """Work that must not begin."""

    def work(*_, **__):
        raise AssertionError("began to work")

    for module in (painted, photographs):
        monkeypatch.setattr(module, "compare_methods", work)


def test_the_table_of_photographs_has_the_numbers_of_the_result(few_photos, tmp_path, output_of):
    out = tmp_path / "demo"
    lines = output_of("demo", "--out", out, "--seed", 4).splitlines()
    result = json.loads((out / "result.json").read_text())
    assert list(result["methods"]) == list(photo_comparison.METHODS)
    assert (result["shots"], result["seed"], result["backbone"], len(result["classes"])) == (1, 4, "tiny", 8)
    start = next(i for i, line in enumerate(lines) if line.startswith("zero-shot"))
    for line, (name, one) in zip(lines[start:], result["methods"].items(), strict=False):
        assert line[:24].rstrip() == name
        unknown = one["ood"]["unknown"]
        numbers = (one["accuracy"], *one["interval"], unknown["auroc"], unknown["fpr95"])
        assert re.findall(r"\d+\.\d+", line[24:]) == [f"{number:.3f}" for number in numbers] + [f"{one['seconds']:.1f}"]
        assert one["ood_method"] in line
        assert (one["n"], unknown["n"]) == (16, 6)
    named = [Path(word) for line in lines for word in line.split() if str(tmp_path) in word]
    missing = [path for path in named if not path.exists() and path.name != "explained.png"]
    assert missing == []


def test_what_it_leaves_in_the_folder(few_photos, tmp_path, output_of):
    out = tmp_path / "demo"
    output_of("demo", "--out", out)
    found = sorted(path.name for path in out.iterdir())
    assert found == ["model.safetensors", "photos", "prompts.png", "report.html", "result.json"]
    model, record, _ = load_model(out / "model.safetensors")
    assert model.class_names == ImageSet.from_path(out / "photos" / "train").classes
    assert (record.training.seed, record.training.shots, record.backbone["name"]) == (1, 1, "tiny")
    assert len(record.history) == 1
    page = (out / "report.html").read_text()
    assert f"--ood {out / 'photos' / 'unknown'}" in page
    with Image.open(out / "prompts.png") as picture:
        assert picture.format == "PNG"
    names = [path.relative_to(packaged_photos()) for path in packaged_photos().rglob("*")]
    assert sorted(names) == sorted(path.relative_to(out / "photos") for path in (out / "photos").rglob("*"))
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.suffix != ".json"}
    result = json.loads(output_of("demo", "--out", out, "--force", "--json", "-"))
    expected = {"methods", "classes", "backbone", "shots", "seed", "encoding_seconds", "seconds", "versions"}
    assert set(result) == expected
    assert before == {path: path.read_bytes() for path in out.rglob("*.*") if path.suffix != ".json"}


def numbers_of(one):
    """All numbers in a method's line, in order, as JSON has them."""
    local = one["local"] or {}
    ood = [one["ood"][kind][measure] for measure in ("auroc", "fpr95") for kind in ("near", "mid", "far")]
    found = [one["accuracy"], *one["interval"], *ood, local.get("mass_on_parts"), local.get("overlap")]
    return [f"{number:.3f}" for number in found if number is not None] + [f"{one['seconds']:.0f}"]


def test_the_table_of_shapes_has_the_numbers_of_the_result(small, tmp_path, output_of):
    out = tmp_path / "demo"
    lines = output_of("demo", "--painted", "--out", out, "--seed", 4).splitlines()
    result = json.loads((out / "result.json").read_text())
    assert list(result["methods"]) == [method.name for method in comparison.METHODS]
    assert (result["shots"], result["seed"]) == (1, 4)
    assert "sotglp" in result["versions"]
    start = next(i for i, line in enumerate(lines) if line.startswith(comparison.METHODS[0].name))
    for line, (name, one) in zip(lines[start:], result["methods"].items(), strict=False):
        assert line[:24].rstrip() == name
        assert re.findall(r"\d+(?:\.\d+)?", line[24:]) == numbers_of(one)
        assert one["n"] == 20
        assert {kind: numbers["n"] for kind, numbers in one["ood"].items()} == {"near": 6, "mid": 6, "far": 6}
    (chance,) = {f"{one['local']['chance']:.3f}" for one in result["methods"].values() if one["local"]}
    assert any(f"uniform {chance}" in line for line in lines)


def test_what_the_painted_demo_leaves_in_the_folder(small, tmp_path, output_of):
    out = tmp_path / "demo"
    output_of("demo", "--painted", "--out", out)
    assert sorted(path.name for path in out.iterdir()) == ["model.safetensors", "photos", "plan.png", "result.json"]
    model, record, _ = load_model(out / "model.safetensors")
    assert tuple(record.classes) == model.class_names == few_shot_task().names
    assert (record.training.seed, record.training.shots, record.backbone["pretrained"]) == (1, 1, "embedded")
    with Image.open(out / "plan.png") as picture:
        assert picture.format == "PNG"
    # The folders are called as the classes are, and hold the pictures bit for bit.
    train = ImageSet.from_path(out / "photos" / "train")
    assert set(ImageSet.from_path(out / "photos" / "test").classes) == set(train.classes) == set(model.class_names)
    painted = draw_shots_of_task(1, 1)
    expected = dict(zip(painted.labels, (image.tobytes() for image in painted.images), strict=True))
    assert {
        label: Image.open(path).tobytes() for path, label in zip(train.images, train.labels, strict=True)
    } == expected
    for name in ("near", "mid", "far"):
        assert len(ImageSet.from_flat_folder(out / "photos" / name)) == 6
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.name != "result.json"}
    result = json.loads(output_of("demo", "--painted", "--out", out, "--force", "--json", "-"))
    assert set(result) == {"methods", "shots", "seed", "seconds", "versions"}
    assert before == {path: path.read_bytes() for path in out.rglob("*.*") if path.name != "result.json"}


@pytest.mark.parametrize(
    ("left", "options"),
    [
        ("model.safetensors", []),
        ("prompts.png", []),
        ("report.html", []),
        ("photos", []),
        ("model.safetensors", ["--painted"]),
        ("plan.png", ["--painted"]),
        ("photos", ["--painted"]),
    ],
)
def test_what_an_earlier_demonstration_left_is_kept(left, options, idle, tmp_path, error_of):
    out = tmp_path / "demo"
    mine = out / "photos" / "mine.png" if left == "photos" else out / left
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    error = error_of("demo", "--out", out, *options)
    assert f"{out / left} exists" in error
    assert "--force" in error
    assert [path for path in out.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "mine"
    with pytest.raises(SotglpError, match="force=True"):
        (painted.run_painted if options else photographs.run_photographs)(out)


def test_folders_and_files_that_cannot_be_written(idle, tmp_path, error_of):
    file = tmp_path / "file"
    file.write_text("mine")
    assert "is a file" in error_of("demo", "--out", file)
    assert "can't be written" in error_of("demo", "--out", file / "below")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "photos").write_text("mine")
    for options in ([], ["--force"]):
        error = error_of("demo", "--out", tmp_path / "demo", *options)
        assert "photos is a file" in error
    precious = tmp_path / "precious.json"
    precious.write_text("{}")
    # Nothing is left behind either.
    command = ("demo", "--out", tmp_path / "other", "--json")
    assert "not a result of sotglp" in error_of(*command, precious)
    assert "is a folder" in error_of(*command, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "file", "precious.json"]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(SotglpError, match=r"0000\.png can't be written \(No space left on device\)"):
        painted.save_photos(tmp_path, draw_shots_of_task(1, 1))
