"""The four sets of images of none of ImageNet's classes, by which OOD scores are judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sotglp.datasets.entry import Entry, Splits
from sotglp.images.image_set import ImageSet

_MOS = "https://github.com/deeplearning-wisc/large_scale_ood"
_DTD = "https://www.robots.ox.ac.uk/~vgg/data/dtd"


def read_unlabelled(folder: Path) -> Splits:
    """Read all images below a folder as a test set without classes.

    Parameters
    ----------
    folder : Path
        The dataset's folder.

    Raises
    ------
    SotglpError
        If there is no such folder or no image in it.
    """
    return Splits((), test=ImageSet.from_flat_folder(folder))


@dataclass(frozen=True)
class TexturesEntry(Entry):
    """Textures, which are DTD's images: those of the dataset dtd serve where the set has no folder of its own."""

    def place(self, root: Path) -> Path:
        """Give root/Textures or, if there is none, root/Texture (LoCoOp's name of it) or root/dtd."""
        places = [root / folder for folder in (self.folder, "Texture", "dtd")]
        return next((place for place in places if place.is_dir()), places[0])


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="inaturalist",
        title="iNaturalist",
        role="ood",
        folder="iNaturalist",
        n_classes=0,
        counts={"test": 10_000},
        source=f"{_MOS} (iNaturalist.tar.gz)",
        terms="not stated for this selection; each photo on iNaturalist has a licence of its own",
        layout=("images/*.jpg",),
        read=read_unlabelled,
    ),
    Entry(
        name="sun",
        title="SUN",
        role="ood",
        folder="SUN",
        n_classes=0,
        counts={"test": 10_000},
        source=f"{_MOS} (SUN.tar.gz)",
        terms="not stated",
        layout=("images/*.jpg",),
        read=read_unlabelled,
    ),
    Entry(
        name="places",
        title="Places",
        role="ood",
        folder="Places",
        n_classes=0,
        counts={"test": 10_000},
        source=f"{_MOS} (Places.tar.gz)",
        terms="not stated for this selection; Places itself is for non-commercial research and education (from memory, "
        "check at http://places2.csail.mit.edu)",
        layout=("images/*.jpg",),
        read=read_unlabelled,
    ),
    TexturesEntry(
        name="textures",
        title="Textures (all of DTD)",
        role="ood",
        folder="Textures",
        n_classes=0,
        counts={"test": 5_640},
        source=f"{_DTD} (dtd-r1.0.1.tar.gz; the folder of the dataset dtd serves as well)",
        terms="for research; the images belong to their owners (from memory, check at the source)",
        layout=("images/banded/*.jpg",),
        read=read_unlabelled,
    ),
)
"""The OOD sets of MOS, which MCM, GL-MCM and LoCoOp took over.

References
----------
Huang & Li 2021, arXiv 2105.01879, for the selections; Cimpoi et al., arXiv 1311.3618, for Textures.
"""
