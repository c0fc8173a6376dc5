"""Miniature trees of the few-shot benchmarks in the layouts of CoOp and torchvision, and what should be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from support.imagenet_trees import plant

Expected = dict[str, list[tuple[Path, str]]]
"""Images and labels of each part."""


class Layout(NamedTuple):
    """CoOp's layout of a dataset: files and names of three classes, numbered in this order."""

    folder: str
    split_file: str
    images: str
    torchvision_images: str
    files: tuple[str, str, str]
    names: tuple[str, str, str]
    spoken: tuple[str, str, str]


COOP = {
    "caltech101": Layout(
        "caltech-101",
        "split_zhou_Caltech101.json",
        "101_ObjectCategories",
        "caltech101/101_ObjectCategories",
        ("Faces/image_{:04d}.jpg", "airplanes/image_{:04d}.jpg", "crocodile_head/image_{:04d}.jpg"),
        ("face", "airplane", "crocodile_head"),
        ("face", "airplane", "crocodile head"),
    ),
    "oxford_pets": Layout(
        "oxford_pets",
        "split_zhou_OxfordPets.json",
        "images",
        "oxford-iiit-pet/images",
        ("Abyssinian_{}.jpg", "american_bulldog_{}.jpg", "Bengal_{}.jpg"),
        ("abyssinian", "american_bulldog", "bengal"),
        ("abyssinian", "american bulldog", "bengal"),
    ),
    "stanford_cars": Layout(
        "stanford_cars",
        "split_zhou_StanfordCars.json",
        ".",
        ".",
        ("cars_train/1{:04d}.jpg", "cars_train/2{:04d}.jpg", "cars_test/3{:04d}.jpg"),
        ("2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Ram C/V Cargo Van Minivan"),
        ("2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Ram C/V Cargo Van Minivan"),
    ),
    "flowers102": Layout(
        "oxford_flowers",
        "split_zhou_OxfordFlowers.json",
        "jpg",
        "flowers-102/jpg",
        ("image_1{:04d}.jpg", "image_2{:04d}.jpg", "image_3{:04d}.jpg"),
        ("pink primrose", "hard-leaved pocket orchid", "canterbury bells"),
        ("pink primrose", "hard-leaved pocket orchid", "canterbury bells"),
    ),
    "food101": Layout(
        "food-101",
        "split_zhou_Food101.json",
        "images",
        "images",
        ("apple_pie/{}.jpg", "baby_back_ribs/{}.jpg", "waffles/{}.jpg"),
        ("apple_pie", "baby_back_ribs", "waffles"),
        ("apple pie", "baby back ribs", "waffles"),
    ),
    "sun397": Layout(
        "sun397",
        "split_zhou_SUN397.json",
        "SUN397",
        "SUN397",
        ("a/abbey/sun_{}.jpg", "g/gymnasium/indoor/sun_{}.jpg", "b/batters_box/sun_{}.jpg"),
        ("abbey", "indoor gymnasium", "batters_box"),
        ("abbey", "indoor gymnasium", "batters box"),
    ),
    "dtd": Layout(
        "dtd",
        "split_zhou_DescribableTextures.json",
        "images",
        "dtd/images",
        ("banded/banded_{:04d}.jpg", "polka-dotted/polka-dotted_{:04d}.jpg", "zigzagged/zigzagged_{:04d}.jpg"),
        ("banded", "polka-dotted", "zigzagged"),
        ("banded", "polka-dotted", "zigzagged"),
    ),
    "eurosat": Layout(
        "eurosat",
        "split_zhou_EuroSAT.json",
        "2750",
        "2750",
        ("AnnualCrop/AnnualCrop_{}.jpg", "Forest/Forest_{}.jpg", "SeaLake/SeaLake_{}.jpg"),
        ("Annual Crop Land", "Forest", "Sea or Lake"),
        ("Annual Crop Land", "Forest", "Sea or Lake"),
    ),
    "ucf101": Layout(
        "ucf101",
        "split_zhou_UCF101.json",
        "UCF-101-midframes",
        "UCF-101-midframes",
        ("Apply_Eye_Makeup/v_a{}.jpg", "Yo_Yo/v_y{}.jpg", "Basketball/v_b{}.jpg"),
        ("Apply_Eye_Makeup", "Yo_Yo", "Basketball"),
        ("Apply Eye Makeup", "Yo Yo", "Basketball"),
    ),
}

PART_NUMBERS = {"train": (3, 2, 1), "val": (7,), "test": (4, 5)}
"""Numbers of the images of each class that a miniature split file lists, in its order."""


def plant_published(root: Path, name: str, *, torchvision_images: bool = False) -> Expected:
    """Plant images and the split file that lists them, the last class first."""
    layout = COOP[name]
    folder = root / layout.folder
    images = folder / (layout.torchvision_images if torchvision_images else layout.images)
    split: dict[str, list[tuple[str, int, str]]] = {part: [] for part in PART_NUMBERS}
    expected: Expected = {part: [] for part in PART_NUMBERS}
    for part, numbers in PART_NUMBERS.items():
        for label in (2, 0, 1):
            for number in numbers:
                file = layout.files[label].format(number)
                split[part].append((file, label, layout.names[label]))
                expected[part].append((images / file, layout.spoken[label]))
    plant(images, [file for rows in split.values() for file, _, _ in rows])
    (folder / layout.split_file).write_text(json.dumps(split))
    return expected


def plant_rows(images: Path, rows: dict[str, list[tuple[str, str]]]) -> Expected:
    plant(images, [file for part in rows.values() for file, _ in part])
    return {part: [(images / file, label) for file, label in listed] for part, listed in rows.items()}


def plant_oxford_pets(root: Path) -> Expected:
    base = root / "oxford_pets/oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    (base / "annotations/trainval.txt").write_text(
        "Abyssinian_1 1 1 1\nAbyssinian_2 1 1 1\namerican_bulldog_1 2 2 1\nBengal_9 3 1 2\n"
    )
    (base / "annotations/test.txt").write_text("american_bulldog_5 2 2 1\nAbyssinian_3 1 1 1\nBengal_4 3 1 2\n")
    cat, dog, bengal = "abyssinian", "american bulldog", "bengal"
    return plant_rows(
        base / "images",
        {
            "train": [
                ("Abyssinian_1.jpg", cat),
                ("Abyssinian_2.jpg", cat),
                ("american_bulldog_1.jpg", dog),
                ("Bengal_9.jpg", bengal),
            ],
            "test": [("american_bulldog_5.jpg", dog), ("Abyssinian_3.jpg", cat), ("Bengal_4.jpg", bengal)],
        },
    )


def plant_stanford_cars(root: Path) -> Expected:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    train = {"00001.jpg": 2, "00002.jpg": 1, "00003.jpg": 2}
    test = {"00001.jpg": 1, "00002.jpg": 2}
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    scipy.io.savemat(base / "devkit/cars_meta.mat", {"class_names": names})
    scipy.io.savemat(base / "devkit/cars_train_annos.mat", {"annotations": _car_annotations(train)})
    scipy.io.savemat(base / "cars_test_annos_withlabels.mat", {"annotations": _car_annotations(test)})
    spoken = {1: "2000 AM General Hummer SUV", 2: "2012 Acura RL Sedan"}
    return plant_rows(
        base,
        {
            "train": [(f"cars_train/{file}", spoken[number]) for file, number in train.items()],
            "test": [(f"cars_test/{file}", spoken[number]) for file, number in test.items()],
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
    (base / "meta").mkdir(parents=True)
    (base / "meta/train.json").write_text('{"waffles": ["waffles/7"], "apple_pie": ["apple_pie/10", "apple_pie/11"]}')
    (base / "meta/test.json").write_text('{"apple_pie": ["apple_pie/2"], "waffles": ["waffles/3"]}')
    return plant_rows(
        base / "images",
        {
            "train": [
                ("waffles/7.jpg", "waffles"),
                ("apple_pie/10.jpg", "apple pie"),
                ("apple_pie/11.jpg", "apple pie"),
            ],
            "test": [("apple_pie/2.jpg", "apple pie"), ("waffles/3.jpg", "waffles")],
        },
    )


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
    images = {"train": 1000000, "val": 2000000, "test": 3000000}
    rows = {
        part: [(f"{first + number:07d}.jpg", name) for number, name in enumerate(reversed(variants))]
        for part, first in images.items()
    }
    expected = plant_rows(base / "images", rows)
    (base / "variants.txt").write_text("".join(f"{name}\n" for name in variants))
    for part, listed in rows.items():
        lines = [f"{file.removesuffix('.jpg')} {name}\n" for file, name in listed]
        (base / f"images_variant_{part}.txt").write_text("".join(lines))
    return expected


def plant_sun397_lists(root: Path) -> Expected:
    base = root / "sun397"
    base.mkdir(parents=True, exist_ok=True)
    (base / "ClassName.txt").write_text("/a/abbey\n/g/gymnasium/indoor\n/b/batters_box\n")
    (base / "Training_01.txt").write_text("/g/gymnasium/indoor/sun_a.jpg\n/b/batters_box/sun_b.jpg\n/a/abbey/sun_c.jpg")
    (base / "Testing_01.txt").write_text("/a/abbey/sun_d.jpg\n\n/b/batters_box/sun_e.jpg\n")
    return plant_rows(
        base / "SUN397",
        {
            "train": [
                ("g/gymnasium/indoor/sun_a.jpg", "indoor gymnasium"),
                ("b/batters_box/sun_b.jpg", "batters box"),
                ("a/abbey/sun_c.jpg", "abbey"),
            ],
            "test": [("a/abbey/sun_d.jpg", "abbey"), ("b/batters_box/sun_e.jpg", "batters box")],
        },
    )


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
    spoken = {"Faces": "face", "accordion": "accordion", "airplanes": "airplane", "wild_cat": "wild cat"}
    base = root / "caltech-101" / below
    plant(base, [f"{name}/image_{k:04d}.jpg" for name in ("BACKGROUND_Google", "Faces_easy") for k in range(3)])
    return _plant_classes(base, spoken, "image_{:04d}.jpg")


def plant_eurosat_folders(root: Path) -> dict[Path, str]:
    spoken = {"SeaLake": "Sea or Lake", "Highway": "Highway or Road", "Forest": "Forest"}
    return _plant_classes(root / "eurosat/2750", spoken, "tile_{}.jpg")


def plant_sun397_folders(root: Path) -> dict[Path, str]:
    base = root / "sun397/SUN397"
    planted = _plant_classes(base, SUN397_CLASSES, "sun_{}.jpg")
    (base / "ClassName.txt").write_text("".join(f"/{place}\n" for place in SUN397_CLASSES))
    return planted


def _plant_classes(base: Path, spoken: dict[str, str], file: str, n: int = 10) -> dict[Path, str]:
    planted = {base / name / file.format(k): label for name, label in spoken.items() for k in range(n)}
    plant(base, [str(path.relative_to(base)) for path in planted])
    return planted


DRAWN: dict[str, Callable[[Path], dict[Path, str]]] = {
    "caltech101": plant_caltech101_folders,
    "eurosat": plant_eurosat_folders,
    "sun397": plant_sun397_folders,
}
"""Trees without any split, with ten images of each class."""


def trust_flowers(monkeypatch) -> None:
    """Let torchvision take miniature lists for the published ones, whose checksums it knows."""
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda path, md5: Path(path).is_file())
