"""ImageNet, and the four sets that show its classes otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sotglp.datasets.class_folders import refuse_other_folders
from sotglp.datasets.entry import Entry, Splits
from sotglp.datasets.imagenet_names import imagenet_names
from sotglp.errors import SotglpError, some_names
from sotglp.images.folders import read_flat_folder
from sotglp.images.image_set import ImageSet


def read_imagenet(folder: Path) -> Splits:
    """Read ImageNet's training images and, for the test, its validation images.

    Both lie in a folder for each class, below images/ as CoOp has them or in `folder` itself as torchvision does. The
    class names are open_clip's (see `imagenet_names`); a classnames.txt of CoOp that lies there is not read.

    Parameters
    ----------
    folder : Path
        The dataset's folder.

    Raises
    ------
    SotglpError
        If a split is missing or one of the 1000 classes has no images in it, or a class folder is none of ImageNet's.
    """
    base = next((base for base in (folder / "images", folder) if _has_a_split(base)), folder / "images")
    for split in ("train", "val"):
        if not (base / split).is_dir():
            raise SotglpError(f"there is no folder {base / split}; put ImageNet's {split} images there, by class")
    names = imagenet_names()
    train = _read_classes(base / "train", names)
    return Splits(tuple(names.values()), test=_read_classes(base / "val", names), train=train)


def read_imagenetv2(folder: Path) -> Splits:
    """Read ImageNetV2, whose folders are named by class number, 0 to 999.

    Parameters
    ----------
    folder : Path
        The dataset's folder.

    Raises
    ------
    SotglpError
        If the class folders are not there, a class has no images, or a folder is named otherwise.
    """
    numbered = {str(number): name for number, name in enumerate(imagenet_names().values())}
    return _test_alone(folder / "imagenetv2-matched-frequency-format-val", numbered)


def read_imagenet_sketch(folder: Path) -> Splits:
    """Read ImageNet-Sketch, which has all 1000 classes.

    Parameters
    ----------
    folder : Path
        The dataset's folder.

    Raises
    ------
    SotglpError
        If the class folders are not there, a class has no images, or a folder is none of ImageNet's.
    """
    return _test_alone(folder / "images", imagenet_names())


def read_imagenet_a(folder: Path) -> Splits:
    """Read ImageNet-A, which has 200 of the classes: those that have a folder, in ImageNet's order.

    Parameters
    ----------
    folder : Path
        The dataset's folder.

    Raises
    ------
    SotglpError
        If the class folders are not there, one has no images, or one is none of ImageNet's.
    """
    return _test_of_some(folder / "imagenet-a")


def read_imagenet_r(folder: Path) -> Splits:
    """Read ImageNet-R, which has 200 of the classes: those that have a folder, in ImageNet's order.

    Parameters
    ----------
    folder : Path
        The dataset's folder.

    Raises
    ------
    SotglpError
        If the class folders are not there, one has no images, or one is none of ImageNet's.
    """
    return _test_of_some(folder / "imagenet-r")


def _test_of_some(folder: Path) -> Splits:
    present = {wnid: name for wnid, name in imagenet_names().items() if (folder / wnid).is_dir()}
    return _test_alone(folder, present)


def _test_alone(folder: Path, names: Mapping[str, str]) -> Splits:
    return Splits(tuple(names.values()), test=_read_classes(folder, names))


def _has_a_split(base: Path) -> bool:
    return (base / "train").is_dir() or (base / "val").is_dir()


def _read_classes(folder: Path, names: Mapping[str, str]) -> ImageSet:
    """Read the images of class folders that are named by the keys of `names`, each of which must have some."""
    images = read_flat_folder(folder)
    depth = len(folder.parts)
    if loose := [image.name for image in images if len(image.parts) == depth + 1]:
        raise SotglpError(
            f"{folder} has images outside the class folders: {some_names(loose)}; sort them into class folders"
        )
    keys = [image.parts[depth] for image in images]
    found = set(keys)
    refuse_other_folders(folder, found, names.keys())
    if missing := [key for key in names if key not in found]:
        raise SotglpError(
            f"{folder} has no images of {len(missing)} of {len(names)} classes, the first in the folder {missing[0]}; "
            "unpack the dataset again"
        )
    return ImageSet(images, tuple(names[key] for key in keys))


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="imagenet",
        title="ImageNet (ILSVRC 2012)",
        role="few-shot",
        folder="imagenet",
        n_classes=1000,
        counts={"train": 1_281_167, "test": 50_000},
        source="https://image-net.org/download.php",
        terms="non-commercial research and education, after registration (from memory, check at the source)",
        layout=("images/train/n01440764/*.JPEG", "images/val/n01440764/*.JPEG"),
        read=read_imagenet,
    ),
    Entry(
        name="imagenetv2",
        title="ImageNetV2 (matched frequency)",
        role="shift",
        folder="imagenetv2",
        n_classes=1000,
        counts={"test": 10_000},
        source="https://github.com/modestyachts/ImageNetV2",
        terms="the repository is under the MIT licence; terms of the images, which are from Flickr, not stated",
        layout=("imagenetv2-matched-frequency-format-val/0/*.jpeg",),
        read=read_imagenetv2,
    ),
    Entry(
        name="imagenet_sketch",
        title="ImageNet-Sketch",
        role="shift",
        folder="imagenet-sketch",
        n_classes=1000,
        counts={"test": 50_889},
        source="https://github.com/HaohanWang/ImageNet-Sketch",
        terms="the repository is under the MIT licence; terms of the images, found by a web search, not stated",
        layout=("images/n01440764/*.JPEG",),
        read=read_imagenet_sketch,
    ),
    Entry(
        name="imagenet_a",
        title="ImageNet-A",
        role="shift",
        folder="imagenet-adversarial",
        n_classes=200,
        counts={"test": 7_500},
        source="https://github.com/hendrycks/natural-adv-examples",
        terms="the repository is under the MIT licence; terms of the images not stated",
        layout=("imagenet-a/n01498041/*.jpg",),
        read=read_imagenet_a,
    ),
    Entry(
        name="imagenet_r",
        title="ImageNet-R",
        role="shift",
        folder="imagenet-rendition",
        n_classes=200,
        counts={"test": 30_000},
        source="https://github.com/hendrycks/imagenet-r",
        terms="not stated",
        layout=("imagenet-r/n01443537/*.jpg",),
        read=read_imagenet_r,
    ),
)
"""ImageNet and its shifted relatives, in the layout of CoOp's DATASETS.md."""
