"""The images of ../shared/data, and how the small backbone is adapted to them (docs/learning_rates.md)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sotglp.backbone import Backbone
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.image_set import ImageSet
from sotglp.settings import ModelConfig, TrainConfig
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

LEARNING_RATES = {True: 0.2, False: 1.0}
"""Best of those tried, with and without a learned projection."""


class SharedSet(NamedTuple):
    """Images to learn from and to test on, and images of none of the classes by name."""

    train: ImageSet
    test: ImageSet
    others: dict[str, ImageSet]


def load_shared(data: Path, name: str) -> SharedSet:
    others = {other: ImageSet.from_flat_folder(data / "ood" / other) for other in OTHERS[name]}
    return SharedSet(ImageSet.from_path(data / name / "train"), ImageSet.from_path(data / name / "test"), others)


def fit_shared(backbone: Backbone, train: ImageSet, seed: int, *, learn_projection: bool, shots: int = 16) -> Fitted:
    rate = LEARNING_RATES[learn_projection]
    training = TrainConfig(shots=shots, epochs=60, augment=False, learning_rate=rate, seed=seed)
    model = ModelConfig(learn_projection=learn_projection)
    return adapt(backbone, train, model, training, cache_dir=default_cache_dir())
