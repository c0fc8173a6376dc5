"""Miniature trees of the published datasets in the layouts of CoOp and torchvision, and what should be read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
from PIL import Image

from sotglp.datasets import find

Expected = dict[str, list[tuple[Path, str]]]
"""Images and labels of each part."""


def plant(folder: Path, files: Iterable[str]) -> Path:
    """Write the same tiny JPEG to all these paths below a folder, by hard links: thousands take a moment."""
    first = None
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if first is None:
            Image.new("RGB", (16, 16), "teal").save(path, "JPEG")
            first = path
        else:
            os.link(first, path)
    return folder


def by_class(keys: Iterable[str], ending: str = "JPEG", n: int = 1) -> list[str]:
    return [f"{key}/{key}_{k}.{ending}" for key in keys for k in range(n)]


class Published(NamedTuple):
    """Files and names of three classes of a dataset in CoOp's layout, numbered in this order."""

    files: tuple[str, str, str]
    names: tuple[str, str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(name.replace("_", " ") for name in self.names)


COOP = {
    "caltech101": Published(
        ("Faces/image_{:04d}.jpg", "airplanes/image_{:04d}.jpg", "crocodile_head/image_{:04d}.jpg"),
        ("face", "airplane", "crocodile_head"),
    ),
    "oxford_pets": Published(
        ("Abyssinian_{}.jpg", "american_bulldog_{}.jpg", "Bengal_{}.jpg"),
        ("abyssinian", "american_bulldog", "bengal"),
    ),
    "stanford_cars": Published(
        ("cars_train/1{:04d}.jpg", "cars_train/2{:04d}.jpg", "cars_test/3{:04d}.jpg"),
        ("2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Ram C/V Cargo Van Minivan"),
    ),
    "flowers102": Published(
        ("image_1{:04d}.jpg", "image_2{:04d}.jpg", "image_3{:04d}.jpg"),
        ("pink primrose", "hard-leaved pocket orchid", "canterbury bells"),
    ),
    "food101": Published(
        ("apple_pie/{}.jpg", "baby_back_ribs/{}.jpg", "waffles/{}.jpg"),
        ("apple_pie", "baby_back_ribs", "waffles"),
    ),
    "sun397": Published(
        ("a/abbey/sun_{}.jpg", "g/gymnasium/indoor/sun_{}.jpg", "b/batters_box/sun_{}.jpg"),
        ("abbey", "indoor gymnasium", "batters_box"),
    ),
    "dtd": Published(
        ("banded/banded_{:04d}.jpg", "polka-dotted/polka-dotted_{:04d}.jpg", "zigzagged/zigzagged_{:04d}.jpg"),
        ("banded", "polka-dotted", "zigzagged"),
    ),
    "eurosat": Published(
        ("AnnualCrop/AnnualCrop_{}.jpg", "Forest/Forest_{}.jpg", "SeaLake/SeaLake_{}.jpg"),
        ("Annual Crop Land", "Forest", "Sea or Lake"),
    ),
    "ucf101": Published(
        ("Apply_Eye_Makeup/v_a{}.jpg", "Yo_Yo/v_y{}.jpg", "Basketball/v_b{}.jpg"),
        ("Apply_Eye_Makeup", "Yo_Yo", "Basketball"),
    ),
}

PART_NUMBERS = {"train": (3, 2, 1), "val": (7,), "test": (4, 5)}
"""Numbers of the images of each class that a miniature split file lists, in its order."""


def plant_published(root: Path, name: str, *, torchvision_images: bool = False) -> Expected:
    """Plant images and the split file that lists them, the last class first."""
    entry, layout = find(name), COOP[name]
    read: Any = entry.read
    folder, split_file = root / entry.folder, read.keywords["split_file"]
    images = folder / read.keywords["images"][-1 if torchvision_images else 0]
    split: dict[str, list[tuple[str, int, str]]] = {part: [] for part in PART_NUMBERS}
    expected: Expected = {part: [] for part in PART_NUMBERS}
    for part, numbers in PART_NUMBERS.items():
        for label in (2, 0, 1):
            for number in numbers:
                file = layout.files[label].format(number)
                split[part].append((file, label, layout.names[label]))
                expected[part].append((images / file, layout.classes[label]))
    plant(images, [file for rows in split.values() for file, _, _ in rows])
    (folder / split_file).write_text(json.dumps(split))
    return expected


def plant_rows(images: Path, rows: dict[str, list[tuple[str, str]]]) -> Expected:
    plant(images, [file for part in rows.values() for file, _ in part])
    return {part: [(images / file, label) for file, label in listed] for part, listed in rows.items()}


def plant_oxford_pets(root: Path) -> Expected:
    base = root / "oxford_pets/oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    numbers = {"Abyssinian": 1, "american_bulldog": 2, "Bengal": 3}
    listed = {
        "train": ["Abyssinian_1", "Abyssinian_2", "american_bulldog_1", "Bengal_9"],
        "test": ["american_bulldog_5", "Abyssinian_3", "Bengal_4"],
    }
    rows: dict[str, list[tuple[str, str]]] = {}
    for part, name in (("train", "trainval"), ("test", "test")):
        breeds = [image.rpartition("_")[0] for image in listed[part]]
        lines = [f"{image} {numbers[breed]} 1 1\n" for image, breed in zip(listed[part], breeds, strict=True)]
        (base / f"annotations/{name}.txt").write_text("".join(lines))
        rows[part] = [
            (f"{image}.jpg", breed.lower().replace("_", " ")) for image, breed in zip(listed[part], breeds, strict=True)
        ]
    return plant_rows(base / "images", rows)


def plant_stanford_cars(root: Path) -> Expected:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    train = {"00001.jpg": 2, "00002.jpg": 1, "00003.jpg": 2}
    test = {"00001.jpg": 1, "00002.jpg": 2}
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    scipy.io.savemat(base / "devkit/cars_meta.mat", {"class_names": names})
    scipy.io.savemat(base / "devkit/cars_train_annos.mat", {"annotations": _car_annotations(train)})
    scipy.io.savemat(base / "cars_test_annos_withlabels.mat", {"annotations": _car_annotations(test)})
    labels = {1: "2000 AM General Hummer SUV", 2: "2012 Acura RL Sedan"}
    return plant_rows(
        base,
        {
            "train": [(f"cars_train/{file}", labels[number]) for file, number in train.items()],
            "test": [(f"cars_test/{file}", labels[number]) for file, number in test.items()],
        },
    )


def _car_annotations(cars: dict[str, int]) -> np.ndarray:
    return np.array(list(cars.items()), dtype=[("fname", object), ("class", np.uint8)])


def plant_flowers102(root: Path) -> Expected:
    base = root / "oxford_flowers/flowers-102"
    base.mkdir(parents=True)
    scipy.io.savemat(base / "imagelabels.mat", {"labels": np.array([[1, 1, 1, 60, 60, 60, 3, 3, 3]], dtype=np.uint8)})
    scipy.io.savemat(base / "setid.mat", {"trnid": [[1, 4, 9]], "valid": [[2, 6, 7]], "tstid": [[3, 8, 5]]})
    first, dahlia, third = "pink primrose", "pink-yellow dahlia", "canterbury bells"
    return plant_rows(
        base / "jpg",
        {
            "train": [("image_00001.jpg", first), ("image_00004.jpg", dahlia), ("image_00009.jpg", third)],
            "val": [("image_00002.jpg", first), ("image_00006.jpg", dahlia), ("image_00007.jpg", third)],
            "test": [("image_00003.jpg", first), ("image_00008.jpg", third), ("image_00005.jpg", dahlia)],
        },
    )


def plant_food101(root: Path) -> Expected:
    base = root / "food-101"
    listed = {
        "train": {"waffles": ["waffles/7"], "apple_pie": ["apple_pie/10", "apple_pie/11"]},
        "test": {"apple_pie": ["apple_pie/2"], "waffles": ["waffles/3"]},
    }
    (base / "meta").mkdir(parents=True)
    for part, classes in listed.items():
        (base / f"meta/{part}.json").write_text(json.dumps(classes))
    rows = {
        part: [(f"{image}.jpg", name.replace("_", " ")) for name, images in classes.items() for image in images]
        for part, classes in listed.items()
    }
    return plant_rows(base / "images", rows)


def plant_dtd(root: Path) -> Expected:
    base = root / "dtd/dtd"
    rows = {
        part: [(f"{name}/{name}_{number:04d}.jpg", name) for name in ("polka-dotted", "banded")]
        for number, part in enumerate(("train", "val", "test"))
    }
    (base / "labels").mkdir(parents=True)
    for part, listed in rows.items():
        (base / f"labels/{part}1.txt").write_text("".join(f"{file}\n" for file, _ in listed))
    return plant_rows(base / "images", rows)


def plant_fgvc_aircraft(root: Path, below: str = "fgvc_aircraft/fgvc-aircraft-2013b/data") -> Expected:
    base = root / below
    variants = ("707-320", "An-12", "F/A-18", "Boeing 717")
    first = {"train": 1000000, "test": 3000000}
    rows = {
        part: [(f"{first[part] + number:07d}.jpg", name) for number, name in enumerate(reversed(variants))]
        for part in first
    }
    expected = plant_rows(base / "images", rows)
    (base / "variants.txt").write_text("".join(f"{name}\n" for name in variants))
    for part, listed in (("train", "trainval"), ("test", "test")):
        lines = [f"{file.removesuffix('.jpg')} {name}\n" for file, name in rows[part]]
        (base / f"images_variant_{listed}.txt").write_text("".join(lines))
    return expected


def plant_sun397_lists(root: Path) -> Expected:
    base = root / "sun397"
    names = {"a/abbey": "abbey", "g/gymnasium/indoor": "indoor gymnasium", "b/batters_box": "batters box"}
    listed = {
        "train": ["g/gymnasium/indoor/sun_a.jpg", "b/batters_box/sun_b.jpg", "a/abbey/sun_c.jpg"],
        "test": ["a/abbey/sun_d.jpg", "b/batters_box/sun_e.jpg"],
    }
    base.mkdir(parents=True, exist_ok=True)
    (base / "ClassName.txt").write_text("".join(f"/{category}\n" for category in names))
    (base / "Training_01.txt").write_text("\n".join(f"/{image}" for image in listed["train"]))
    (base / "Testing_01.txt").write_text("\n\n".join(f"/{image}" for image in listed["test"]) + "\n")
    rows = {part: [(image, names[image.rpartition("/")[0]]) for image in images] for part, images in listed.items()}
    return plant_rows(base / "SUN397", rows)


def plant_ucf101_lists(root: Path) -> Expected:
    base = root / "ucf101"
    lists = base / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\r\n2 YoYo\r\n")
    (lists / "trainlist01.txt").write_text("YoYo/v_YoYo_g08_c01.avi 2\r\nApplyEyeMakeup/v_a_g08_c02.avi 1\r\n")
    (lists / "testlist01.txt").write_text("ApplyEyeMakeup/v_a_g01_c01.avi\r\n")
    return plant_rows(
        base / "UCF-101-midframes",
        {
            "train": [
                ("Yo_Yo/v_YoYo_g08_c01.jpg", "Yo Yo"),
                ("Apply_Eye_Makeup/v_a_g08_c02.jpg", "Apply Eye Makeup"),
            ],
            "test": [("Apply_Eye_Makeup/v_a_g01_c01.jpg", "Apply Eye Makeup")],
        },
    )


OFFICIAL: dict[str, Callable[[Path], Expected]] = {
    "oxford_pets": plant_oxford_pets,
    "stanford_cars": plant_stanford_cars,
    "flowers102": plant_flowers102,
    "food101": plant_food101,
    "dtd": plant_dtd,
    "sun397": plant_sun397_lists,
    "ucf101": plant_ucf101_lists,
}
"""Trees without a split file that are read by their official split."""

SUN397_CLASSES = {
    "a/abbey": "abbey",
    "a/apartment_building/outdoor": "outdoor apartment building",
    "b/batters_box": "batters box",
}


def plant_caltech101_folders(root: Path, below: str = "caltech101/101_ObjectCategories") -> dict[Path, str]:
    labels = {"Faces": "face", "accordion": "accordion", "airplanes": "airplane", "wild_cat": "wild cat"}
    base = root / "caltech-101" / below
    plant(base, [f"{name}/image_{k:04d}.jpg" for name in ("BACKGROUND_Google", "Faces_easy") for k in range(3)])
    return _plant_classes(base, labels, "image_{:04d}.jpg")


def plant_eurosat_folders(root: Path) -> dict[Path, str]:
    labels = {"SeaLake": "Sea or Lake", "Highway": "Highway or Road", "Forest": "Forest"}
    return _plant_classes(root / "eurosat/2750", labels, "tile_{}.jpg")


def plant_sun397_folders(root: Path) -> dict[Path, str]:
    base = root / "sun397/SUN397"
    planted = _plant_classes(base, SUN397_CLASSES, "sun_{}.jpg")
    (base / "ClassName.txt").write_text("".join(f"/{category}\n" for category in SUN397_CLASSES))
    return planted


def _plant_classes(base: Path, labels: dict[str, str], file: str, n: int = 10) -> dict[Path, str]:
    planted = {base / name / file.format(k): label for name, label in labels.items() for k in range(n)}
    plant(base, [str(path.relative_to(base)) for path in planted])
    return planted


DRAWN: dict[str, Callable[[Path], dict[Path, str]]] = {
    "caltech101": plant_caltech101_folders,
    "eurosat": plant_eurosat_folders,
    "sun397": plant_sun397_folders,
}
"""Trees without any split, with ten images of each class."""


def trust_flowers(monkeypatch) -> None:
    """Let torchvision accept miniature lists, which don't have the published checksums."""
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda path, md5: Path(path).is_file())
