"""Caltech101 and EuroSAT, which are class folders without lists: their parts are drawn from the dataset's folder."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from sotglp.datasets.parts import Sample, draw_parts
from sotglp.errors import SotglpError, some_names
from sotglp.images.folders import read_class_folders

_CALTECH101_EXCLUDED = frozenset({"BACKGROUND_Google", "Faces_easy"})
_CALTECH101_RENAMED = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}

EUROSAT_NAMES = {
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}


def caltech101_parts(folder: Path) -> dict[str, list[Sample]]:
    """Draw a split of Caltech101 without its background and its second set of faces."""
    found = _images_by_folder(first_folder(folder, ("101_ObjectCategories", "caltech101/101_ObjectCategories")))
    kept = sorted(found.keys() - _CALTECH101_EXCLUDED)
    return draw_parts(
        [
            (image, number, _CALTECH101_RENAMED.get(name, name))
            for number, name in enumerate(kept)
            for image in found[name]
        ]
    )


def eurosat_parts(folder: Path) -> dict[str, list[Sample]]:
    """Draw a split of EuroSAT."""
    base = first_folder(folder, ("2750",))
    found = _images_by_folder(base)
    check_class_folders(base, found.keys(), EUROSAT_NAMES.keys())
    return draw_parts(
        [
            (image, number, class_name)
            for number, (name, class_name) in enumerate(EUROSAT_NAMES.items())
            for image in found.get(name, ())
        ]
    )


def first_folder(folder: Path, candidates: tuple[str, ...]) -> Path:
    """Return the first of some folders below ``folder`` that exists; raise SotglpError if there is none."""
    paths = [folder / candidate for candidate in candidates]
    for path in paths:
        if path.is_dir():
            return path
    raise SotglpError(f"there is no folder {' or '.join(map(str, paths))}; put the images there")


def check_class_folders(base: Path, found: Set[str], known: Set[str]) -> None:
    """Raise SotglpError if a class folder is not among the dataset's classes."""
    if extra := sorted(found - known):
        raise SotglpError(
            f"{base} has folders that are not classes of the dataset: {some_names(extra)}; rename or remove them"
        )


def _images_by_folder(base: Path) -> dict[str, list[Path]]:
    images, labels = read_class_folders(base)
    found: dict[str, list[Path]] = {}
    for image, label in zip(images, labels, strict=True):
        found.setdefault(label, []).append(image)
    return found
