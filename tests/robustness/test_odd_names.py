"""Odd names of files, many classes and odd names of classes: a result or one sentence."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.images.decode import open_image
from sotglp.images.few_shot import draw_shots
from sotglp.images.image_set import ImageSet
from support.command import QUICK_FIT, fails, run_here, sotglp
from support.costly_images import MEBIBYTE
from support.samples import COLOURS, coloured_image

ODD_FILES = (
    "with blank.png",
    "-rf.png",
    "--json.png",
    'comma, quote".png',
    "émeu.png",
    unicodedata.normalize("NFD", "décor.png"),
    "\N{DOG FACE}\N{ZERO WIDTH JOINER}.png",
    "two\nlines.png",
    "tab\tand\x1b[31mred.png",
    "#%&{}$!'`*?.png",
    "x" * 251 + ".png",
)
NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


class Printed(NamedTuple):
    """What a command wrote."""

    stdout: str
    stderr: str


Command = Callable[..., Printed]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command line in this process, which saves the seconds that a new one takes to start."""

    def run_command(*arguments: object, code: int = 0) -> Printed:
        return Printed(*run_here(capsys, monkeypatch, *arguments, code=code))

    return run_command


@pytest.mark.slow
def test_odd_names_of_files_through_folders_manifests_and_commands(
    tmp_path: Path, picture: bytes, model_file: Path
) -> None:
    root = tmp_path / "in put"
    for folder in COLOURS:
        (root / folder).mkdir(parents=True)
        for name in (*ODD_FILES, NOT_UTF8):
            (root / folder / name).write_bytes(picture)
    listed = ImageSet.from_path(root)
    assert Counter(path.name for path in listed.images) == dict.fromkeys((*ODD_FILES, NOT_UTF8), len(COLOURS))
    for path in listed.images:
        assert open_image(path).size == (40, 40)

    manifest = tmp_path / "list.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([root.name + f"/{label}/{name}", label] for label in COLOURS for name in ODD_FILES)
    assert [path.name for path in ImageSet.from_path(manifest).images] == [*ODD_FILES] * len(COLOURS)

    for data in (root, manifest):
        sotglp("fit", data, "--out", tmp_path / "out.safetensors", *QUICK_FIT, "--force")
    for command in (
        ["fit", "in put", "--out", "-m", *QUICK_FIT],
        ["predict", model_file, "--csv", "-r.csv", "--", "-rf.png"],
    ):
        (tmp_path / "-rf.png").write_bytes(picture)
        sotglp(*command, cwd=tmp_path)
    assert (tmp_path / "-m").is_file()

    names = [str(root / "red_brick" / name) for name in ODD_FILES]
    done = sotglp("predict", model_file, *names, "--csv", tmp_path / "r.csv", "--json", tmp_path / "r.json")
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == names
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [row["path"] for row in told["predictions"]] == names
    assert done.stdout.splitlines()[len(names) + 2] == f"{len(names)} images:"
    assert "\x1b" not in done.stdout


def test_a_name_that_is_not_utf8_stays_readable_in_results(
    tmp_path: Path, picture: bytes, model_file: Path, run: Command
) -> None:
    path = tmp_path / NOT_UTF8
    path.write_bytes(picture)
    assert r"caf\udce9.png  " in run("predict", model_file, path).stdout
    run("predict", model_file, path, "--csv", tmp_path / "r.csv", "--json", tmp_path / "r.json")
    # JSON gives the very name back, and the table says it in letters.
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert os.fsencode(told["predictions"][0]["path"]) == os.fsencode(path)
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"].endswith(r"caf\udce9.png") for row in csv.DictReader(file)] == [True]


@pytest.mark.parametrize("command", ["fit", "fit --out", "evaluate", "predict", "info"])
def test_a_name_that_no_file_can_have_is_one_sentence(
    tmp_path: Path, model_file: Path, command: str, run: Command
) -> None:
    name = tmp_path / ("x" * 300)
    arguments = {
        "fit": [name, "--out", tmp_path / "m", *QUICK_FIT],
        "fit --out": [tmp_path, "--out", name, *QUICK_FIT],
        "evaluate": [model_file, name],
        "predict": [model_file, name],
        "info": [name],
    }[command]
    done = run(command.split()[0], *arguments, code=2)
    assert len(done.stderr.splitlines()) == 1
    assert str(name) in done.stderr


def test_five_thousand_classes_are_read_and_drawn_from(tmp_path: Path) -> None:
    root = tmp_path / "train"
    for number in range(5000):
        (root / f"class {number:04}").mkdir(parents=True)
        for image in range(2):
            (root / f"class {number:04}" / f"{image}.png").touch()
    images = ImageSet.from_path(root)
    assert len(images.classes) == 5000
    labels = [*(images.labels or ()), *["class 0000"] * 1000]
    drawn = draw_shots(labels, 1, seed=1)
    assert Counter(labels[index] for index in drawn) == dict.fromkeys(images.classes, 1)

    manifest = tmp_path / "list.csv"
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in images.images if isinstance(path, Path)]
    manifest.write_text("\n".join(["path,label", *rows]))
    listed = ImageSet.from_path(manifest)
    assert (listed.images, listed.labels) == (images.images, images.labels)


@pytest.mark.slow
def test_text_features_of_two_thousand_classes_take_bounded_memory() -> None:
    script = (
        "import resource, torch, sotglp\n"
        "model = sotglp.SOTGLP(sotglp.Backbone.load('tiny'), [f'class number {k}' for k in range(2000)])\n"
        "def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used()\n"
        "with torch.no_grad(): features = model.encode_text()\n"
        "assert features.local.shape[:2] == (2000, 4)\n"
        "print(used() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True)
    assert int(done.stdout) * (1 if sys.platform == "darwin" else 1024) < 1024 * MEBIBYTE


ODD_CLASSES = (
    "!?",
    "-",
    "--force",
    "\N{DOG FACE}",
    "名前",
    "a\tb",
    "=1+1",
    "two\nlines",
    "émeu",
    "[red]x",
)


def test_odd_class_names_are_learned_and_predicted(tmp_path: Path, run: Command) -> None:
    rng = np.random.default_rng(0)
    for index, label in enumerate(ODD_CLASSES):
        (tmp_path / "train" / label).mkdir(parents=True)
        coloured_image(rng, (20 * index, 100, 200 - 15 * index)).save(tmp_path / "train" / label / "0.png")
    out = tmp_path / "m.safetensors"
    run("fit", tmp_path / "train", "--out", out, *QUICK_FIT)
    assert json.loads(run("info", out, "--json", "-").stdout)["classes"] == sorted(ODD_CLASSES)
    done = run("predict", out, tmp_path / "train", "--json", tmp_path / "r.json")
    assert done.stdout.splitlines()[len(ODD_CLASSES) + 2] == f"{len(ODD_CLASSES)} images:"
    for row in json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["predictions"]:
        assert set(row["probabilities"]) == set(ODD_CLASSES)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["cat", "word " * 300], "tokens, but the text tower allows"),
        (["cat", "w" * 1_000_000], "has 1000000 characters: shorten it"),
        (["sea_lion", "sea lion"], "give the same prompt"),
        (["Cat", "cat"], "give the same prompt"),
        (["caf\u00e9", "cafe\u0301"], "give the same prompt"),
        (["cat", "___"], "has no text for a prompt"),
        (["cat"], "needs at least two classes"),
    ],
)
def test_class_names_that_cannot_be_told_apart_or_said(tiny_backbone: Backbone, labels: list[str], words: str) -> None:
    with pytest.raises(SotglpError, match=words) as caught:
        SOTGLP(tiny_backbone, labels)
    assert len(str(caught.value)) < 1000


def test_a_class_folder_whose_name_is_not_utf8_is_refused(
    tmp_path: Path, picture: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in ("cat", NOT_UTF8.removesuffix(".png")):
        (tmp_path / "train" / label).mkdir(parents=True)
        (tmp_path / "train" / label / "0.png").write_bytes(picture)
    assert "isn't UTF-8" in fails(capsys, monkeypatch, "fit", tmp_path / "train", "--out", tmp_path / "m", *QUICK_FIT)
