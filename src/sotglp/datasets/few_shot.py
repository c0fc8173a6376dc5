"""Ten of the eleven few-shot benchmarks, in the layout of CoOp's DATASETS.md; the eleventh is ImageNet."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sotglp.datasets.class_folders import CALTECH101_IMAGES, EUROSAT_IMAGES, caltech101_parts, eurosat_parts
from sotglp.datasets.entry import Entry, Splits
from sotglp.datasets.list_files import read_fgvc_aircraft, sun397_listed_parts, ucf101_parts
from sotglp.datasets.published import DRAWN, OTHER, UNDIVIDED, read_published
from sotglp.datasets.split_file import GUIDE
from sotglp.datasets.torchvision_layouts import (
    dtd_parts,
    fetch,
    flowers102_parts,
    food101_parts,
    oxford_pets_parts,
    stanford_cars_parts,
    sun397_parts,
)


def read_sun397(folder: Path) -> Splits:
    """Read SUN397 by CoOp's split file, its official lists, or a draw of our own, in that order.

    Parameters
    ----------
    folder : Path
        The dataset's folder.

    Raises
    ------
    SotglpError
        If none of them can be read, or what they list isn't there.

    Warns
    -----
    OtherSplitWarning
        If there is no split file.
    """
    listed = (folder / "Training_01.txt").is_file()
    return read_published(
        folder,
        split_file="split_zhou_SUN397.json",
        images=("SUN397",),
        otherwise=sun397_listed_parts if listed else sun397_parts,
        instead=UNDIVIDED if listed else DRAWN,
    )


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="caltech101",
        title="Caltech101",
        role="few-shot",
        folder="caltech-101",
        n_classes=100,
        counts={"train": 4128, "val": 1649, "test": 2465},
        source="https://data.caltech.edu/records/mzrjq-6wc02",
        terms="CC BY 4.0 (from memory, check at the source)",
        layout=("101_ObjectCategories/airplanes/*.jpg", "split_zhou_Caltech101.json"),
        read=partial(
            read_published,
            split_file="split_zhou_Caltech101.json",
            images=CALTECH101_IMAGES,
            otherwise=caltech101_parts,
            instead=DRAWN,
        ),
        download=partial(fetch, "Caltech101", below="caltech-101"),
    ),
    Entry(
        name="oxford_pets",
        title="Oxford-IIIT Pets",
        role="few-shot",
        folder="oxford_pets",
        n_classes=37,
        counts={"train": 2944, "val": 736, "test": 3669},
        source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        terms="CC BY-SA 4.0; the images belong to their owners (from memory, check at the source)",
        layout=("images/*.jpg", "annotations/*.txt", "split_zhou_OxfordPets.json"),
        read=partial(
            read_published,
            split_file="split_zhou_OxfordPets.json",
            images=("images", "oxford-iiit-pet/images"),
            otherwise=oxford_pets_parts,
            instead=UNDIVIDED,
        ),
        download=partial(fetch, "OxfordIIITPet", below="oxford_pets"),
    ),
    Entry(
        name="stanford_cars",
        title="Stanford Cars",
        role="few-shot",
        folder="stanford_cars",
        n_classes=196,
        counts={"train": 6509, "val": 1635, "test": 8041},
        source="https://github.com/pytorch/vision/issues/7545 (the authors' page is gone; copies are named there)",
        terms="non-commercial research, as ImageNet (from memory, check at the source)",
        layout=(
            "cars_train/*.jpg",
            "cars_test/*.jpg",
            "devkit/*.mat",
            "cars_test_annos_withlabels.mat",
            "split_zhou_StanfordCars.json",
        ),
        read=partial(
            read_published,
            split_file="split_zhou_StanfordCars.json",
            images=(".",),
            otherwise=stanford_cars_parts,
            instead=UNDIVIDED,
        ),
    ),
    Entry(
        name="flowers102",
        title="Oxford Flowers 102",
        role="few-shot",
        folder="oxford_flowers",
        n_classes=102,
        counts={"train": 4093, "val": 1633, "test": 2463},
        source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        terms="not stated",
        layout=("jpg/*.jpg", "split_zhou_OxfordFlowers.json"),
        read=partial(
            read_published,
            split_file="split_zhou_OxfordFlowers.json",
            images=("jpg", "flowers-102/jpg"),
            otherwise=flowers102_parts,
            instead=OTHER,
        ),
        download=partial(fetch, "Flowers102", below="oxford_flowers"),
    ),
    Entry(
        name="food101",
        title="Food-101",
        role="few-shot",
        folder="food-101",
        n_classes=101,
        counts={"train": 50_500, "val": 20_200, "test": 30_300},
        source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        terms="scientific fair use; beyond it the owners of the pictures decide (from memory, check at the source)",
        layout=("images/apple_pie/*.jpg", "meta/*.json", "split_zhou_Food101.json"),
        read=partial(
            read_published,
            split_file="split_zhou_Food101.json",
            images=("images",),
            otherwise=food101_parts,
            instead=OTHER,
        ),
        download=partial(fetch, "Food101"),
    ),
    Entry(
        name="fgvc_aircraft",
        title="FGVC Aircraft",
        role="few-shot",
        folder="fgvc_aircraft",
        n_classes=100,
        counts={"train": 3334, "val": 3333, "test": 3333},
        source="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        terms="non-commercial research (from memory, check at the source)",
        layout=("images/*.jpg", "variants.txt", "images_variant_*.txt"),
        read=read_fgvc_aircraft,
        download=partial(fetch, "FGVCAircraft", below="fgvc_aircraft"),
    ),
    Entry(
        name="sun397",
        title="SUN397",
        role="few-shot",
        folder="sun397",
        n_classes=397,
        counts={"train": 15_880, "val": 3970, "test": 19_850},
        source="https://vision.princeton.edu/projects/2010/SUN/",
        terms="not stated",
        layout=("SUN397/a/abbey/*.jpg", "split_zhou_SUN397.json"),
        read=read_sun397,
        download=partial(fetch, "SUN397", below="sun397"),
    ),
    Entry(
        name="dtd",
        title="Describable Textures (DTD)",
        role="few-shot",
        folder="dtd",
        n_classes=47,
        counts={"train": 2820, "val": 1128, "test": 1692},
        source="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        terms="for research; the images belong to their owners (from memory, check at the source)",
        layout=("images/banded/*.jpg", "split_zhou_DescribableTextures.json"),
        read=partial(
            read_published,
            split_file="split_zhou_DescribableTextures.json",
            images=("images", "dtd/images"),
            otherwise=dtd_parts,
            instead=OTHER,
        ),
        download=partial(fetch, "DTD"),
    ),
    Entry(
        name="eurosat",
        title="EuroSAT (RGB)",
        role="few-shot",
        folder="eurosat",
        n_classes=10,
        counts={"train": 13_500, "val": 5400, "test": 8100},
        source="https://github.com/phelber/EuroSAT",
        terms="MIT licence; the satellite's data are free under Copernicus' terms (from memory, check at the source)",
        layout=("2750/Forest/*.jpg", "split_zhou_EuroSAT.json"),
        read=partial(
            read_published,
            split_file="split_zhou_EuroSAT.json",
            images=EUROSAT_IMAGES,
            otherwise=eurosat_parts,
            instead=DRAWN,
        ),
        download=partial(fetch, "EuroSAT"),
    ),
    Entry(
        name="ucf101",
        title="UCF101, middle frames",
        role="few-shot",
        folder="ucf101",
        n_classes=101,
        counts={"train": 7639, "val": 1898, "test": 3783},
        source=f"{GUIDE}#ucf101 (UCF-101-midframes.zip; the videos are at https://www.crcv.ucf.edu/data/UCF101.php)",
        terms="not stated",
        layout=("UCF-101-midframes/Apply_Eye_Makeup/*.jpg", "split_zhou_UCF101.json"),
        read=partial(
            read_published,
            split_file="split_zhou_UCF101.json",
            images=("UCF-101-midframes",),
            otherwise=ucf101_parts,
            instead=UNDIVIDED,
        ),
    ),
)
"""Their counts are those of the published split.

References
----------
Zhou et al., arXiv 2109.01134, table of datasets, for the counts.
"""
