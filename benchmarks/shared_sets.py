"""The images of ../shared/data, and how the model of photos is adapted to them: with its own defaults."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import default_method, training_defaults
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import find_method
from sotglp.settings import Preset, Settings, TrainConfig
from sotglp.training.fit import Fitted, adapt

SEEDS = (1, 2, 3)
WEB_OTHERS = ("imagenet_samples", "dtd_textures")
OTHERS = {
    "caltech101": WEB_OTHERS,
    "pacs_photo": WEB_OTHERS,
    "rsscn7": WEB_OTHERS,
    "cifar10": ("imagenet_things_32",),
}
"""In-distribution sets, and the out-of-distribution sets that the data's README allows beside each."""


class SharedSet(NamedTuple):
    """Images to learn from and to test on, and images of none of the classes by name."""

    train: ImageSet
    test: ImageSet
    others: dict[str, ImageSet]


def load_shared(data: Path, name: str) -> SharedSet:
    others = {other: ImageSet.from_flat_folder(data / "ood" / other) for other in OTHERS[name]}
    return SharedSet(ImageSet.from_path(data / name / "train"), ImageSet.from_path(data / name / "test"), others)


def settings_of(backbone: Backbone, seed: int) -> TrainConfig:
    """Settings of training that come with the backbone."""
    return TrainConfig(**training_defaults(backbone.name), shots=16, seed=seed)


def model_of(backbone: Backbone) -> Settings:
    """Settings of the model that `sotglp fit` makes by default."""
    return find_method(default_method(backbone.name)).settings_on(Preset(), {})[0]


def fit_shared(backbone: Backbone, train: ImageSet, seed: int) -> Fitted:
    return adapt(backbone, train, model_of(backbone), settings_of(backbone, seed), cache_dir=default_cache_dir())
