"""Datasets in torchvision's layout, read and downloaded by torchvision's classes.

All readers get the dataset's folder. They raise SotglpError if torchvision can't read it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sotglp.datasets.list_files import sun397_name
from sotglp.datasets.parts import Sample, draw_parts
from sotglp.errors import SotglpError

_ALL_PARTS = {"train": "train", "val": "val", "test": "test"}

_WITHOUT_CHECKSUM = frozenset({"FGVCAircraft"})
"""Datasets whose archive torchvision unpacks without checking a checksum or the paths in it."""


def oxford_pets_parts(folder: Path) -> dict[str, list[Sample]]:
    """Read Oxford-IIIT Pets from oxford-iiit-pet/, by its official lists."""
    return _parts("OxfordIIITPet", folder, {"train": "trainval", "test": "test"}, _lower_case)


def stanford_cars_parts(folder: Path) -> dict[str, list[Sample]]:
    """Read Stanford Cars, by its official annotations."""
    return _parts("StanfordCars", folder.parent, {"train": "train", "test": "test"}, _year_first)


def flowers102_parts(folder: Path) -> dict[str, list[Sample]]:
    """Read Flowers102 from flowers-102/, by its official split, with the names of CoOp's cat_to_name.json, if any."""
    table = folder / "cat_to_name.json"
    return _parts("Flowers102", folder, _ALL_PARTS, lambda part: _flower_names(part, table))


def food101_parts(folder: Path) -> dict[str, list[Sample]]:
    """Read Food-101, by its official split."""
    return _parts("Food101", folder.parent, {"train": "train", "test": "test"}, _unchanged)


def dtd_parts(folder: Path) -> dict[str, list[Sample]]:
    """Read the Describable Textures from dtd/, by the first of its official splits."""
    return _parts("DTD", folder.parent, _ALL_PARTS, _unchanged)


def sun397_parts(folder: Path) -> dict[str, list[Sample]]:
    """Draw a split of all images in SUN397/."""
    samples = _samples("SUN397", folder, lambda part: [sun397_name(category) for category in part.classes])
    return draw_parts(sorted(samples))


def fetch(root: Path, *, kind: str, below: str = "") -> None:
    """Download the dataset of the class ``kind`` of torchvision.datasets into the folder ``below`` a data root."""
    from torchvision import datasets

    folder = root / below
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Some versions of torchvision print progress to standard output, where results may go.
        with contextlib.redirect_stdout(sys.stderr):
            if kind in _WITHOUT_CHECKSUM:
                _fetch_archive(getattr(datasets, kind)._URL, folder)
            else:
                getattr(datasets, kind)(folder, download=True)
    except (OSError, RuntimeError, ImportError, tarfile.TarError) as error:
        why = _first_sentence(error)
        raise SotglpError(
            f"torchvision's download of {kind} failed ({why}); try again or download it by hand"
        ) from error


def _fetch_archive(url: str, folder: Path) -> None:
    """Download a tar archive and unpack it, with no file outside the folder."""
    from torchvision.datasets.utils import download_url

    if not hasattr(tarfile, "data_filter"):
        raise RuntimeError("this Python can't unpack archives safely; update it")
    download_url(url, folder)
    with tarfile.open(folder / url.rpartition("/")[2]) as archive:
        archive.extractall(folder, filter="data")


def _parts(
    kind: str, root: Path, parts: Mapping[str, str], names: Callable[[Any], Sequence[str]]
) -> dict[str, list[Sample]]:
    return {part: _samples(kind, root, names, split=split) for part, split in parts.items()}


def _samples(kind: str, root: Path, names: Callable[[Any], Sequence[str]], **options: str) -> list[Sample]:
    """Return the image files and classes of a torchvision dataset, which are private attributes of it."""
    from torchvision import datasets

    try:
        part = getattr(datasets, kind)(root, download=False, **options)
        if kind == "StanfordCars":
            pairs = part._samples
        else:
            pairs = zip(part._images if kind == "OxfordIIITPet" else part._image_files, part._labels, strict=True)
        class_names = names(part)
        return [(Path(image), int(number), class_names[number]) for image, number in pairs]
    except SotglpError:
        raise
    # On a damaged tree, torchvision's readers and scipy raise exceptions of many types.
    except Exception as error:
        what = f"the {options['split']} split" if options else "the images"
        why = _first_sentence(error)
        raise SotglpError(
            f"torchvision's reader {kind} can't read {what} below {root} ({why}); unpack the dataset again"
        ) from error


def _unchanged(part: Any) -> list[str]:
    return list(part.classes)


def _lower_case(part: Any) -> list[str]:
    return [name.lower() for name in part.classes]


def _year_first(part: Any) -> list[str]:
    """Move the year to the front, as in CoOp's "2012 Acura RL Sedan"."""
    return [" ".join(name.split()[-1:] + name.split()[:-1]) for name in part.classes]


def _flower_names(part: Any, table: Path) -> list[str]:
    if table.is_file():
        try:
            named = json.loads(table.read_bytes())
            return [named[str(number)] for number in range(1, len(named) + 1)]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise SotglpError(f"{table} doesn't name the classes 1 to 102; download it again or remove it") from error
    if not hasattr(part, "classes"):
        raise SotglpError(f"this torchvision has no names of flowers; update it, or download {table}")
    # Unlike CoOp's list, the dataset's page has a question mark after one name.
    return [name.rstrip("?") for name in part.classes]


def _first_sentence(error: Exception) -> str:
    # The rest is advice for callers of torchvision.
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__
