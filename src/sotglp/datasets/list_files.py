"""FGVC Aircraft, SUN397 and UCF101: datasets whose official parts are text files of image names.

All readers get the dataset's folder. They raise SotglpError if a list is missing or has an unknown class.
"""

from __future__ import annotations

import re
from pathlib import Path

from sotglp.datasets.entry import Splits
from sotglp.datasets.parts import Sample, splits_of
from sotglp.errors import SotglpError


def read_fgvc_aircraft(folder: Path) -> Splits:
    """Read FGVC Aircraft by its official lists; classes are variants.

    The published shots are drawn from the list trainval, so there is no part for validation.
    """
    deeper = folder / "fgvc-aircraft-2013b/data"  # torchvision's layout
    base = deeper if deeper.is_dir() else folder
    numbers = {name: number for number, name in enumerate(_lines(base / "variants.txt"))}
    parts: dict[str, list[Sample]] = {}
    for part, listed in (("train", "trainval"), ("test", "test")):
        path = base / f"images_variant_{listed}.txt"
        rows = [line.partition(" ") for line in _lines(path)]
        parts[part] = [
            (base / "images" / f"{image}.jpg", _number(name, numbers, path), name) for image, _, name in rows
        ]
    return splits_of(parts, base)


def sun397_parts(folder: Path) -> dict[str, list[Sample]]:
    """Read the first of SUN397's official partitions, which has the published test images."""
    numbers = {name: number for number, name in enumerate(_lines(folder / "ClassName.txt"))}
    parts: dict[str, list[Sample]] = {}
    for part, name in (("train", "Training_01.txt"), ("test", "Testing_01.txt")):
        path = folder / name
        rows = [(line, line.rpartition("/")[0]) for line in _lines(path)]
        # A category begins with its first letter: "/g/gymnasium/indoor".
        parts[part] = [
            (folder / "SUN397" / image.lstrip("/"), _number(category, numbers, path), sun397_name(category[3:]))
            for image, category in rows
        ]
    return parts


def sun397_name(category: str) -> str:
    """Return the class name of a folder of SUN397: "gymnasium/indoor" is "indoor gymnasium"."""
    return " ".join(reversed(category.split("/")))


def ucf101_parts(folder: Path) -> dict[str, list[Sample]]:
    """Read the first of UCF101's official splits, whose test videos are the published ones."""
    lists = folder / "ucfTrainTestlist"
    numbers = {}
    for line in _lines(lists / "classInd.txt"):
        number, _, action = line.partition(" ")
        if not number.isdecimal():
            raise SotglpError(
                f"{lists / 'classInd.txt'} has the line {line!r} without a class number; download it again"
            )
        numbers[action] = int(number) - 1
    parts: dict[str, list[Sample]] = {}
    for part in ("train", "test"):
        path = lists / f"{part}list01.txt"
        parts[part] = []
        for line in _lines(path):
            action, _, video = line.split()[0].partition("/")
            name = "_".join(re.findall("[A-Z][^A-Z]*", action))
            frame = folder / "UCF-101-midframes" / name / Path(video).with_suffix(".jpg")
            parts[part].append((frame, _number(action, numbers, path), name))
    return parts


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file that aren't blank."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SotglpError(f"{path} can't be opened ({error.strerror}); unpack the dataset's lists there") from error
    except UnicodeDecodeError as error:
        raise SotglpError(f"{path} isn't UTF-8 text; unpack the dataset's lists again") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _number(name: str, numbers: dict[str, int], path: Path) -> int:
    if name not in numbers:
        raise SotglpError(f"{path} has the unknown class {name!r}; download the list again")
    return numbers[name]
