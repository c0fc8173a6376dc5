from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sotglp import datasets
from support.command import Run
from support.dataset_trees import plant_dtd, plant_eurosat_folders, plant_published
from support.samples import make_class_folders

TINY = ("--backbone", "tiny", "--no-cache")
COUNTS = {"train": 9, "val": 3, "test": 6}


@pytest.fixture(autouse=True)
def _no_root_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SOTGLP_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """DTD and Food-101 of three classes each, and as many textures."""
    for name in ("dtd", "food101"):
        entry = replace(datasets.find(name), n_classes=3, counts=COUNTS)
        monkeypatch.setitem(datasets.ENTRIES, name, entry)
    textures = replace(datasets.find("textures"), counts={"test": sum(COUNTS.values())})
    monkeypatch.setitem(datasets.ENTRIES, "textures", textures)


def by_name(text: str) -> dict[str, Any]:
    return {entry["name"]: entry for entry in json.loads(text)["datasets"]}


def test_list(tmp_path: Path, output_of: Run) -> None:
    plant_published(tmp_path, "dtd")
    lines = output_of("data", "list", "--root", tmp_path).splitlines()
    assert len(lines) == 2 * len(datasets.ENTRIES)
    at = next(index for index, line in enumerate(lines) if line.startswith("dtd "))
    assert lines[at].split() == ["dtd", "few-shot", "there", "47", "classes,", "5640", "images"]
    assert lines[at + 1].strip() == f"Describable Textures (DTD), {datasets.find('dtd').source}"
    assert sum(" missing " in line for line in lines) >= len(datasets.ENTRIES) - 2
    assert any(line.split()[:2] == ["inaturalist", "ood"] and "no classes, 10000 images" in line for line in lines)


def test_list_as_json(tmp_path: Path, output_of: Run) -> None:
    plant_published(tmp_path, "dtd")
    result = by_name(output_of("data", "list", "--root", tmp_path, "--json", "-"))
    assert list(result) == datasets.names()
    assert result["dtd"]["found"]
    assert not result["eurosat"]["found"]
    assert result["eurosat"] == {
        "name": "eurosat",
        "title": "EuroSAT (RGB)",
        "role": "few-shot",
        "folder": "eurosat",
        "expected_classes": 10,
        "expected_counts": {"train": 13500, "val": 5400, "test": 8100},
        "source": "https://github.com/phelber/EuroSAT",
        "terms": datasets.find("eurosat").terms,
        "layout": ["2750/Forest/*.jpg", "split_zhou_EuroSAT.json"],
        "downloadable": True,
        "found": False,
    }


def test_the_root_is_the_option_or_the_environment_or_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output_of: Run
) -> None:
    def root(*arguments: object) -> str:
        return json.loads(output_of("data", "list", "--json", "-", *arguments))["root"]

    assert root() == "data"
    monkeypatch.setenv("SOTGLP_DATA", str(tmp_path / "mine"))
    assert root() == str(tmp_path / "mine")
    assert root("--root", "other") == "other"


@pytest.mark.usefixtures("small")
def test_check_of_whole_datasets(tmp_path: Path, output_of: Run) -> None:
    for name in ("dtd", "food101"):
        plant_published(tmp_path, name)
    # Without a name, all that are there are checked and nothing else; the images of dtd are those of textures too.
    names = ("dtd", "food101")
    for chosen, textures in (((), [f"textures: complete, {tmp_path}/dtd"]), (names, [])):
        lines = output_of("data", "check", *chosen, "--root", tmp_path).splitlines()
        assert sorted(line for line in lines if not line.startswith(" ")) == [
            f"dtd: complete, {tmp_path}/dtd",
            f"food101: complete, {tmp_path}/food-101",
            *textures,
        ]
        assert lines.count("    found: 3 classes, 9 train, 3 val, 6 test") == 2
        assert lines.count("    published: 3 classes, 9 train, 3 val, 6 test") == 2
        assert f"    terms: {datasets.find('dtd').terms}" in lines


@pytest.mark.usefixtures("small")
def test_check_of_broken_and_missing_datasets(tmp_path: Path, output_of: Run) -> None:
    plant_published(tmp_path, "dtd")
    gone = plant_published(tmp_path, "food101")["val"][0][0]
    gone.unlink()
    done = output_of("data", "check", "dtd", "food101", "ucf101", "--root", tmp_path, code=1)
    blocks = done.split("food101: broken, ")[1].split("ucf101: missing, ")
    assert f"    problem: {tmp_path}/food-101/split_zhou_Food101.json lists 1 of 18 images" in blocks[0]
    assert str(gone) in blocks[0]
    for name, block in zip(("food101", "ucf101"), blocks, strict=True):
        entry = datasets.find(name)
        assert f"    expected in {tmp_path / entry.folder}: {', '.join(entry.layout)}\n" in block
        assert f"    source: {entry.source}\n" in block
        assert f"    terms: {entry.terms}\n" in block
    assert "    published: 101 classes, 7639 train, 1898 val, 3783 test" in blocks[1]
    assert "found:" not in blocks[1]


@pytest.mark.usefixtures("small")
def test_check_as_json(tmp_path: Path, output_of: Run) -> None:
    plant_published(tmp_path, "dtd")
    plant_eurosat_folders(tmp_path)
    done = output_of("data", "check", "--root", tmp_path, "--json", "out.json", code=1)
    assert "eurosat: broken" in done
    result = by_name((tmp_path / "out.json").read_text())
    # DTD's folder may serve as an OOD set as well.
    assert {"dtd", "eurosat"} <= set(result) <= {"dtd", "eurosat", "textures"}
    assert result["dtd"]["complete"]
    assert result["dtd"]["counts"] == result["dtd"]["expected_counts"] == COUNTS
    assert result["eurosat"]["counts"] == {"train": 15, "val": 6, "test": 9}
    assert result["eurosat"]["problems"][0] == "3 classes instead of 10"
    assert "not comparable" in result["eurosat"]["warnings"][0]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_class_folders(tmp_path / "photos", per_class=6)


def test_check_of_own_images(photos: Path, output_of: Run) -> None:
    lines = output_of("data", "check", photos, *TINY).splitlines()
    assert lines[0] == f"{photos}: valid, 3 classes, 18 readable images, 6 per class"
    assert lines[1].startswith("    labels: cross-validated agreement 100% (chance 33%), 0 labels are in doubt")
    assert len(lines) == 2


def test_check_finds_what_is_wrong_with_own_images(photos: Path, output_of: Run) -> None:
    (photos / "red_brick" / "0.png").replace(photos / "blue sea" / "brick.png")
    shutil.copy(photos / "green leaf" / "1.png", photos / "green leaf" / "6.png")
    shutil.copy(photos / "green leaf" / "2.png", photos / "red_brick" / "2 leaf.png")
    (photos / "green leaf" / "3.png").write_bytes(b"")
    (photos / "mud").mkdir()
    shutil.copy(photos / "green leaf" / "4.png", photos / "mud" / "lone.png")
    done = output_of("data", "check", "photos", "--json", "out.json", *TINY, code=1)
    document = json.loads(Path("out.json").read_text())
    assert (document["root"], document["datasets"]) == ("data", [])
    (result,) = document["image_sets"]
    assert set(result) == {
        *("path", "is_valid", "counts", "unreadable", "copies", "singleton_classes", "agreement", "chance"),
        *("doubts", "doubts_withheld", "dark", "warnings"),
    }
    assert (result["path"], result["is_valid"]) == ("photos", False)
    assert result["counts"] == {"blue sea": 7, "green leaf": 6, "mud": 1, "red_brick": 6}
    assert result["unreadable"] == [
        {"path": "photos/green leaf/3.png", "reason": "it is empty; replace it or leave it out"}
    ]
    assert [group["labels"] for group in result["copies"]] == [
        ["green leaf"],
        ["green leaf", "red_brick"],
        ["green leaf", "mud"],
    ]
    assert result["singleton_classes"] == ["mud"]
    doubts = {doubt["path"]: doubt for doubt in result["doubts"]}
    assert doubts["photos/blue sea/brick.png"]["looks_like"] == "red_brick"
    assert {doubt["label"] for doubt in doubts.values()} <= {"blue sea", "green leaf", "red_brick"}
    assert all(doubt["n_classes"] == 3 and doubt["rank"] > 1 for doubt in doubts.values())
    assert result["agreement"] > 0.7

    assert "photos: broken, 4 classes, 20 readable images, 1 to 7 per class\n" in done
    assert "    problem: can't read photos/green leaf/3.png: it is empty" in done
    twins = "photos/green leaf/2.png (green leaf), photos/red_brick/2 leaf.png (red_brick)"
    assert f"    problem: the same image is in 2 classes, so a label is wrong: {twins}\n" in done
    assert "    warning: 1 image is a copy of another in the same class" in done
    assert "    warning: classes with fewer than 2 images, whose labels can't be checked: mud\n" in done
    assert "    doubt: photos/blue sea/brick.png looks like red_brick (" in done


@pytest.mark.usefixtures("small")
def test_own_images_beside_datasets(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output_of: Run
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("nobody looks at labels, so no backbone is loaded")

    monkeypatch.setattr("sotglp.backbone.Backbone.load", never)
    plant_published(tmp_path, "dtd")
    table = tmp_path / "table.csv"
    table.write_text("path,label\n" + "".join(f"photos/blue sea/{place % 6}.png,sea\n" for place in range(11)))
    with table.open("a") as file:
        file.write("photos/mud.png,mud\n")
    shutil.copy(photos / "red_brick" / "0.png", photos / "mud.png")
    done = output_of("data", "check", "dtd", "table.csv", "--skip-labels", "--root", tmp_path, "--json", "-")
    document = json.loads(done)
    assert [entry["name"] for entry in document["datasets"]] == ["dtd"]
    (result,) = document["image_sets"]
    assert (result["path"], result["doubts"], result["agreement"]) == ("table.csv", None, None)
    lines = output_of("data", "check", table, "--skip-labels")
    assert "    warning: class sizes are very uneven: mud has 1 image, sea has 11\n" in lines
    # A folder of that name is no reason to take a dataset's name for a path.
    assert output_of("data", "check", "dtd", "--root", tmp_path).startswith(f"dtd: complete, {tmp_path}/dtd\n")


def test_own_images_that_cannot_be_checked(photos: Path, tmp_path: Path, error_of: Run) -> None:
    assert "does not exist" in error_of("data", "check", "nowhere/photos", "--skip-labels")
    (tmp_path / "table.csv").write_text("path\nphotos/blue sea/0.png\n")
    unlabelled = error_of("data", "check", "table.csv", "--skip-labels")
    assert "table.csv can't be checked: the images have no labels" in unlabelled
    assert "did you mean" in error_of("data", "check", photos, "--backbone", "tinny", "--no-cache")


def test_one_class_leaves_nothing_to_compare(photos: Path, output_of: Run) -> None:
    for name in ("blue sea", "green leaf"):
        shutil.rmtree(photos / name)
    assert output_of("data", "check", photos, *TINY) == f"{photos}: valid, 1 class, 6 readable images, 6 per class\n"


def test_check_where_nothing_is(tmp_path: Path, output_of: Run) -> None:
    assert output_of("data", "check", "--root", tmp_path) == (
        f"there is no dataset in {tmp_path}: `sotglp data list` lists the supported ones\n"
    )
    assert json.loads(output_of("data", "check", "--root", tmp_path, "--json", "-"))["datasets"] == []


@pytest.mark.usefixtures("small")
def test_prepare_downloads_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output_of: Run) -> None:
    entry = replace(datasets.find("dtd"), download=plant_dtd, n_classes=2, counts={"train": 2, "val": 2, "test": 2})
    monkeypatch.setitem(datasets.ENTRIES, "dtd", entry)
    lines = output_of("data", "prepare", "dtd", "--root", tmp_path / "data").splitlines()
    assert lines[:3] == [
        f"dtd: terms: {entry.terms}; source: {entry.source}",
        f"dtd: downloaded to {tmp_path}/data/dtd",
        f"dtd: complete, {tmp_path}/data/dtd",
    ]
    assert any(line.startswith("    warning: ") and "split_zhou_DescribableTextures.json" in line for line in lines)
    again = output_of("data", "prepare", "dtd", "--root", tmp_path / "data").splitlines()
    assert again[1] == f"dtd: nothing downloaded, since there is already {tmp_path}/data/dtd"
    result = by_name(output_of("data", "prepare", "dtd", "--root", tmp_path / "data", "--json", "-"))
    assert result["dtd"]["complete"]


def test_prepare_of_a_broken_dataset(tmp_path: Path, output_of: Run) -> None:
    plant_published(tmp_path, "ucf101")
    done = output_of("data", "prepare", "ucf101", "--root", tmp_path, code=1)
    assert "3 classes instead of 101" in done


def test_prepare_of_what_cannot_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Run, output_of: Run
) -> None:
    def never(root: Path) -> None:
        raise AssertionError("nothing is downloaded if a dataset after it can't be")

    monkeypatch.setitem(datasets.ENTRIES, "dtd", replace(datasets.find("dtd"), download=never))
    command = ("prepare", "dtd", "stanford_cars", "--root", tmp_path)
    message = error_of("data", *command, "--json", "-")
    cars = datasets.find("stanford_cars")
    assert "Stanford Cars can't be downloaded automatically: get it at " in message
    assert all(line in message for line in (cars.source, *cars.layout, str(tmp_path / "stanford_cars")))
    assert f"stanford_cars: terms: {cars.terms}; source: {cars.source}\n" in output_of("data", *command, code=2)


def test_mistakes_are_refused(tmp_path: Path, error_of: Run) -> None:
    (tmp_path / "precious.json").write_text("{}")
    for command in (("list",), ("check",), ("prepare", "dtd")):
        assert "not a result of sotglp" in error_of("data", *command, "--json", "precious.json")
    for command in ("check", "prepare"):
        assert "(did you mean oxford_pets?)" in error_of("data", command, "oxfrod_pets")
    assert list(tmp_path.iterdir()) == [tmp_path / "precious.json"]


def test_splits_are_checked_together(photos: Path, tmp_path: Path, output_of: Run) -> None:
    both = tmp_path / "both"
    make_class_folders(both / "test", per_class=2, seed=5)
    photos.rename(both / "train")
    Image.open(both / "train" / "red_brick" / "3.png").resize((90, 80)).save(both / "test" / "red_brick" / "seen.png")
    lines = output_of("data", "check", both, "--skip-labels", "--json", "out.json").splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == [f"{both}/test", f"{both}/train"]
    assert lines[2].startswith("near-duplicates: 1 group (1 in several sets)")
    assert "seen.png (red_brick)" in lines[3]
    (group,) = json.loads(Path("out.json").read_text())["near_duplicates"]
    assert (group["kind"], len(group["images"])) == ("across_sets", 2)


def test_poor_predictions_withhold_doubts(tmp_path: Path, output_of: Run) -> None:
    rng = np.random.default_rng(0)
    for place in range(24):
        folder = tmp_path / "noise" / "abc"[place % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / f"{place}.png")
    Image.new("RGB", (40, 40), (9, 0, 40)).save(tmp_path / "noise" / "a" / "night.png")
    done = output_of("data", "check", "noise", "--json", "out.json", *TINY)
    assert "doubts are withheld" in done
    assert "night.png is almost black" in done
    (result,) = json.loads(Path("out.json").read_text())["image_sets"]
    assert (result["doubts"], result["doubts_withheld"], result["dark"]) == ([], True, ["noise/a/night.png"])


def test_corrections_of_a_check_are_applied_to_a_copy(photos: Path, output_of: Run, error_of: Run) -> None:
    (photos / "red_brick" / "0.png").rename(photos / "blue sea" / "brick.png")
    shutil.copy(photos / "green leaf" / "1.png", photos / "green leaf" / "copy.png")
    outputs = ("--html", "labels.html", "--corrections", "c.csv")
    done = output_of("data", "check", "photos", *outputs, *TINY)
    assert "labels.html" in done
    assert "c.csv: " in done
    page = Path("labels.html").read_text()
    assert "data:image/jpeg" in page
    assert "sotglp data check photos --html labels.html --backbone tiny" in page
    with open("c.csv", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert (rows["blue sea/brick.png"]["action"], rows["blue sea/brick.png"]["new_label"]) == ("", "red_brick")
    assert rows["green leaf/copy.png"]["action"] == "remove"
    assert "green leaf/1.png" not in rows
    assert "labels.html exists" in error_of("data", "check", "photos", *outputs, *TINY)
    assert "c.csv exists" in error_of("data", "check", "photos", *outputs[2:], *TINY)
    Path("c.csv").write_text("path,label,action,new_label\nblue sea/brick.png,blue sea,relabel,red_brick\n")
    lines = output_of("data", "apply", "photos", "c.csv", "--out", "fixed", "--json", "a.json").splitlines()
    assert "relabelled: blue sea/brick.png is now red_brick/brick.png" in lines[1]
    assert Path("fixed/red_brick/brick.png").is_file()
    assert (photos / "blue sea" / "brick.png").is_file()
    document = json.loads(Path("a.json").read_text())
    assert document["relabelled"] == [{"path": "blue sea/brick.png", "new_path": "red_brick/brick.png"}]
    assert "fixed exists" in error_of("data", "apply", "photos", "c.csv", "--out", "fixed")


def test_pages_and_corrections_need_images_of_the_user(photos: Path, tmp_path: Path, error_of: Run) -> None:
    assert "--html is for your own images" in error_of("data", "check", "--html", "x.html")
    (tmp_path / "t.csv").write_text("path,label\nphotos/blue sea/0.png,sea\n")
    for sets in (("photos", "./photos"), ("./t.csv",)):
        assert "--corrections is for one folder" in error_of("data", "check", *sets, "--corrections", "c.csv")
