"""ImageNet and four test sets of its classes (V2, Sketch, A, R), in the layout of CoOp's DATASETS.md.

All readers get the dataset's folder. They raise SotglpError if class folders are missing or empty, or aren't classes
of ImageNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sotglp.datasets.class_folders import check_class_folders
from sotglp.datasets.entry import Splits
from sotglp.errors import SotglpError, some_names
from sotglp.images.folders import read_flat_folder
from sotglp.images.image_set import ImageSet

# OpenAI's list has "missile" and "sunglasses" twice, which prompts can't distinguish. One of each pair gets the first
# name that WordNet has for it.
_RENAMED = {"n04008634": "projectile", "n04355933": "sunglass"}


@cache
def imagenet_names() -> Mapping[str, str]:
    """Return the names of the 1000 classes by WordNet number (n01440764), in the order of class indices.

    The numbers are timm's. The names are those that OpenAI curated for CLIP, as open_clip has them, except for the two
    that occur twice there.

    References
    ----------
    Radford et al., arXiv 2103.00020, for the names; Russakovsky et al., arXiv 1409.0575, for the classes.
    """
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data.imagenet_info import ImageNetInfo

    info: Any = ImageNetInfo()
    names = dict(zip(info.label_names(), IMAGENET_CLASSNAMES, strict=True))
    return MappingProxyType(names | _RENAMED)


def read_imagenet(folder: Path) -> Splits:
    """Read ImageNet's training images and, as test images, its validation images.

    Both are in class folders, below images/ as in CoOp's layout or in ``folder`` itself as in torchvision's. A
    classnames.txt of CoOp is ignored.
    """
    bases = (folder / "images", folder)
    base = next((base for base in bases if (base / "train").is_dir() or (base / "val").is_dir()), bases[0])
    for split in ("train", "val"):
        if not (base / split).is_dir():
            raise SotglpError(f"there is no folder {base / split}; put the class folders of ImageNet's {split} there")
    names = imagenet_names()
    train = _read_classes(base / "train", names)
    return Splits(tuple(names.values()), test=_read_classes(base / "val", names), train=train)


def read_imagenetv2(folder: Path) -> Splits:
    """Read ImageNetV2, whose folders are class indices, 0 to 999."""
    names = {str(index): name for index, name in enumerate(imagenet_names().values())}
    return _test_only(folder / "imagenetv2-matched-frequency-format-val", names)


def read_imagenet_sketch(folder: Path) -> Splits:
    """Read ImageNet-Sketch, which has all 1000 classes."""
    return _test_only(folder / "images", imagenet_names())


def read_imagenet_a(folder: Path) -> Splits:
    """Read ImageNet-A, which has 200 of the classes: those with a folder."""
    return _test_of_present_classes(folder / "imagenet-a")


def read_imagenet_r(folder: Path) -> Splits:
    """Read ImageNet-R, which has 200 of the classes: those with a folder."""
    return _test_of_present_classes(folder / "imagenet-r")


def _test_of_present_classes(folder: Path) -> Splits:
    return _test_only(folder, {wnid: name for wnid, name in imagenet_names().items() if (folder / wnid).is_dir()})


def _test_only(folder: Path, names: Mapping[str, str]) -> Splits:
    return Splits(tuple(names.values()), test=_read_classes(folder, names))


def _read_classes(folder: Path, names: Mapping[str, str]) -> ImageSet:
    """Read the images of class folders named by the keys of ``names``, none of which may be empty."""
    images = read_flat_folder(folder)
    depth = len(folder.parts)
    if loose := [image.name for image in images if len(image.parts) == depth + 1]:
        raise SotglpError(f"{folder} has images outside class folders: {some_names(loose)}; sort them by class")
    keys = [image.parts[depth] for image in images]
    found = set(keys)
    check_class_folders(folder, found, names.keys())
    if missing := [key for key in names if key not in found]:
        raise SotglpError(
            f"{folder} has no images of {len(missing)} of {len(names)} classes, the first in the folder {missing[0]}; "
            "unpack the dataset again"
        )
    return ImageSet(images, tuple(names[key] for key in keys))
