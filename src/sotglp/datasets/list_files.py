"""FGVC Aircraft, SUN397 and UCF101: datasets whose official parts are text files of image names."""

from __future__ import annotations

import re
from pathlib import Path

from sotglp.datasets.entry import Splits
from sotglp.datasets.parts import Sample, splits_of
from sotglp.errors import SotglpError

AIRCRAFT_BELOW_TORCHVISION = "fgvc-aircraft-2013b/data"
UCF101_LISTS = "ucfTrainTestlist"


def read_fgvc_aircraft(folder: Path) -> Splits:
    """Read FGVC Aircraft by its official lists, which are the published split; classes are variants.

    Parameters
    ----------
    folder : Path
        The dataset's folder; images/ and the lists lie in it, as CoOp has them, or deeper, as torchvision does.

    Raises
    ------
    SotglpError
        If a list or an image is missing, or a list names another class than variants.txt does.
    """
    deeper = folder / AIRCRAFT_BELOW_TORCHVISION
    base = deeper if deeper.is_dir() else folder
    numbers = {name: number for number, name in enumerate(_lines(base / "variants.txt"))}
    parts: dict[str, list[Sample]] = {}
    for part in ("train", "val", "test"):
        path = base / f"images_variant_{part}.txt"
        rows = [line.partition(" ") for line in _lines(path)]
        parts[part] = [
            (base / "images" / f"{image}.jpg", _number(name, numbers, path), name) for image, _, name in rows
        ]
    return splits_of(parts, base)


def sun397_listed_parts(folder: Path) -> dict[str, list[Sample]]:
    """Read the first of SUN397's official partitions, whose test images are the published ones.

    Parameters
    ----------
    folder : Path
        The dataset's folder, with SUN397/, ClassName.txt, Training_01.txt and Testing_01.txt.

    Raises
    ------
    SotglpError
        If a list is missing or names another class than ClassName.txt does.
    """
    numbers = {name: number for number, name in enumerate(_lines(folder / "ClassName.txt"))}
    parts: dict[str, list[Sample]] = {}
    for part, name in (("train", "Training_01.txt"), ("test", "Testing_01.txt")):
        path = folder / name
        rows = [(line, line.rpartition("/")[0]) for line in _lines(path)]
        # Each place begins with its first letter: "/g/gymnasium/indoor".
        parts[part] = [
            (folder / "SUN397" / image.lstrip("/"), _number(place, numbers, path), sun397_name(place[3:]))
            for image, place in rows
        ]
    return parts


def sun397_name(place: str) -> str:
    """What a class of SUN397 is called: "gymnasium/indoor" is an indoor gymnasium."""
    return " ".join(reversed(place.split("/")))


def ucf101_parts(folder: Path) -> dict[str, list[Sample]]:
    """Read the first of UCF101's official splits, whose test videos are the published ones.

    Parameters
    ----------
    folder : Path
        The dataset's folder, with UCF-101-midframes/ (a frame of each video) and ucfTrainTestlist/.

    Raises
    ------
    SotglpError
        If a list is missing or names another class than classInd.txt does.
    """
    lists = folder / UCF101_LISTS
    numbers = {}
    for line in _lines(lists / "classInd.txt"):
        number, _, action = line.partition(" ")
        if not number.isdecimal():
            raise SotglpError(f"{lists / 'classInd.txt'} has a line without a class number, {line!r}; get it again")
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
    """Lines of a text file that aren't blank."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SotglpError(f"{path} can't be opened ({error.strerror}); unpack the dataset's lists there") from error
    except UnicodeDecodeError as error:
        raise SotglpError(f"{path} is not UTF-8 text; unpack the dataset's lists again") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _number(name: str, numbers: dict[str, int], path: Path) -> int:
    if name not in numbers:
        raise SotglpError(f"{path} names {name!r}, which is none of the dataset's classes; get the list again")
    return numbers[name]
