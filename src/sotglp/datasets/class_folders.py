"""Caltech101 and EuroSAT: datasets that are class folders and nothing else."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from sotglp.datasets.drawn_split import draw_parts
from sotglp.datasets.parts import Sample
from sotglp.errors import SotglpError, some_names
from sotglp.images.folders import read_class_folders

CALTECH101_IMAGES = ("101_ObjectCategories", "caltech101/101_ObjectCategories")
"""Where Caltech101's class folders may lie: as CoOp has them, and as torchvision does."""

EUROSAT_IMAGES = ("2750",)

CALTECH101_LEFT_OUT = frozenset({"BACKGROUND_Google", "Faces_easy"})
CALTECH101_RENAMED = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}

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
    """Draw a split of Caltech101's class folders, without the background and the second set of faces.

    Parameters
    ----------
    folder : Path
        The dataset's folder.

    Raises
    ------
    SotglpError
        If the class folders aren't there, or one has too few images.
    """
    found = _images_by_folder(first_folder(folder, CALTECH101_IMAGES))
    kept = sorted(found.keys() - CALTECH101_LEFT_OUT)
    return draw_parts(
        [
            (image, number, CALTECH101_RENAMED.get(name, name))
            for number, name in enumerate(kept)
            for image in found[name]
        ]
    )


def eurosat_parts(folder: Path) -> dict[str, list[Sample]]:
    """Draw a split of EuroSAT's class folders.

    Parameters
    ----------
    folder : Path
        The dataset's folder.

    Raises
    ------
    SotglpError
        If the class folders aren't there, one is none of EuroSAT's, or one has too few images.
    """
    base = first_folder(folder, EUROSAT_IMAGES)
    found = _images_by_folder(base)
    refuse_other_folders(base, found.keys(), EUROSAT_NAMES.keys())
    return draw_parts(
        [
            (image, number, spoken)
            for number, (name, spoken) in enumerate(EUROSAT_NAMES.items())
            for image in found.get(name, ())
        ]
    )


def first_folder(folder: Path, places: tuple[str, ...]) -> Path:
    """The first of some places below a folder that is there.

    Raises
    ------
    SotglpError
        If none is.
    """
    for place in places:
        if (folder / place).is_dir():
            return folder / place
    raise SotglpError(
        f"there is no folder {' or '.join(str(folder / place) for place in places)}; put the images there"
    )


def refuse_other_folders(base: Path, found: Set[str], known: Set[str]) -> None:
    """Refuse class folders that no class is named by.

    Raises
    ------
    SotglpError
        Naming the first of them.
    """
    if extra := sorted(found - known):
        raise SotglpError(
            f"{base} has folders that are none of the dataset's classes: {some_names(extra)}; rename or remove them"
        )


def _images_by_folder(base: Path) -> dict[str, list[Path]]:
    images, labels = read_class_folders(base)
    found: dict[str, list[Path]] = {}
    for image, label in zip(images, labels, strict=True):
        found.setdefault(label, []).append(image)
    return found
