"""Models of benchmarks/ood_scores.py: photos of a set, the classes that are left out, and fits without them.

``python benchmarks/ood_models.py --data ../shared/data`` only trains the models and stores them; with ``--only test 4``
those for the test photos with 4 shots, so that several processes can share the work.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import training_defaults
from sotglp.features.cache_folder import default_cache_dir
from sotglp.features.encode import encode_images
from sotglp.features.rows import EncodedImages
from sotglp.images.few_shot import deal_folds, draw_shots
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import Outputs
from sotglp.methods.method import find_method
from sotglp.methods.residual import DiscriminantResidual
from sotglp.methods.shot_memory import unit_features
from sotglp.methods.sot_glp import SOTGLP
from sotglp.methods.text_features import TextFeatures
from sotglp.model_file.load import load_model
from sotglp.model_file.save import save_model
from sotglp.settings import InferenceConfig, Preset, TrainConfig
from sotglp.training.fit import adapt

SETS = (
    *("ship/trash", "ship/clothing", "ship/grocery", "eurosat", "pacs_photo", "rsscn7", "flowers102", "cifar10"),
    "caltech101",
)
MORE_IMAGES = ("rsscn7", "cifar10")
"""Sets with more than 16 training images of a class."""

GROUPS = 3
FAR = {"other_things": "ship/ood/other_things", "caltech_background": "ood/caltech_background"}
METALS = ("azure_fork", "azure_scissors")
METHOD = "sot-glp-gda"
CHOICE_EPOCHS = 4
BATCH = 64


class Cell(NamedTuple):
    """One model: a set, a draw of shots and groups of classes, shots of each class, and the group left out.

    For "choice", on which detectors choose their parameters, two of three folds of these shots are used, and the third
    are known images; such models are trained for a tenth of the epochs. For "test", all shots are used and test photos
    are scored.
    """

    stage: str
    name: str
    draw: int
    shots: int
    group: int

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"{self.stage}-{self.name.replace('/', '_')}-{self.shots}-shots-draw-{self.draw}-group-{self.group}"


def all_cells() -> list[Cell]:
    """All models, in the order of importance."""
    first = [
        Cell(stage, name, 1, shots, group)
        for stage, shots in (("choice", 4), ("choice", 16), ("test", 4), ("test", 16))
        for group, name in product(range(GROUPS), SETS)
    ]
    more = [
        Cell("test", name, draw, shots, group)
        for draw, shots, sets in ((2, 4, SETS), (2, 16, MORE_IMAGES), (3, 4, SETS), (3, 16, MORE_IMAGES))
        for group, name in product(range(GROUPS), sets)
    ]
    return first + more


class Photos:
    """Encoded images of a set: training and test images with their class indices, and far ones."""

    def __init__(self, backbone: Backbone, data: Path, name: str) -> None:
        self.train, self.test = (ImageSet.from_path(data / name / part) for part in ("train", "test"))
        self.classes = self.train.classes
        self.encoded = {"train": encode(backbone, self.train), "test": encode(backbone, self.test)}
        self.targets = {"train": self.train.targets(self.classes), "test": self.test.targets(self.classes)}
        for far, folder in FAR.items():
            if far == "other_things" and not name.startswith("ship/"):
                continue  # it shows animals and vehicles, which are classes of other sets
            images = ImageSet.from_flat_folder(data / folder)
            kept = [i for i in range(len(images)) if not images.name(i).rpartition("/")[2].startswith(METALS)]
            self.encoded[far] = encode(backbone, images.take(kept))


class Split(NamedTuple):
    """Classes of a model, indices of its shots among the training images, and the images to score by what they are."""

    classes: list[str]
    shots: NDArray[np.int64]
    parts: dict[str, EncodedImages]


def split(photos: Photos, cell: Cell) -> Split:
    """Return what a cell trains on and scores."""
    known = np.random.default_rng(cell.draw).permutation(len(photos.classes)).argsort() % GROUPS != cell.group
    drawn = draw_shots(photos.train.labels or (), cell.shots, cell.draw)
    is_known = known[photos.targets["train"][drawn]]
    if cell.stage == "choice":
        held_out = deal_folds(photos.targets["train"][drawn], GROUPS) == cell.group
        shots = drawn[is_known & ~held_out]
        of_part = {"known": ("train", drawn[is_known & held_out]), "unknown": ("train", drawn[~is_known])}
    else:
        shots = drawn[is_known]
        tested = known[photos.targets["test"]]
        of_part = {"known": ("test", np.flatnonzero(tested)), "unknown": ("test", np.flatnonzero(~tested))}
    parts = {part: rows_of(photos.encoded[source], rows) for part, (source, rows) in of_part.items()}
    if cell.stage == "test":
        parts |= {far: photos.encoded[far] for far in FAR if far in photos.encoded}
    return Split([name for name, kept in zip(photos.classes, known, strict=True) if kept], shots, parts)


class Seen(NamedTuple):
    """What scores see of n images: unit features (n, d), class logits (n, C), and what they were computed from."""

    features: Tensor
    logits: Tensor
    outputs: Outputs
    encoded: EncodedImages


class Linear(NamedTuple):
    """The part of a model's logits that is linear in the unit image feature: without the local branch.

    ``weights`` (C, d) and ``bias`` (C,); ``prompts`` are mean global text features (C, d) of unit length.
    """

    weights: Tensor
    bias: Tensor
    prompts: Tensor


@torch.no_grad()
def seen_by(model: SOTGLP, text: TextFeatures, encoded: EncodedImages) -> Seen:
    batches = []
    for start in range(0, len(encoded.image_features), BATCH):
        batch = rows_of(encoded, np.arange(start, min(start + BATCH, len(encoded.image_features))))
        batches.append(model.compare(batch, text))
    outputs = Outputs(*(None if values[0] is None else torch.cat(values) for values in zip(*batches, strict=True)))
    return Seen(unit_features(encoded.image_features), model.logits(outputs).float(), outputs, encoded)


@torch.no_grad()
def linear_part(model: SOTGLP, text: TextFeatures) -> Linear:
    of_global, _, of_residual = model.fusion
    prompts = F.normalize(text.global_.float(), dim=-1).mean(dim=1)
    residual = model.residual
    assert isinstance(residual, DiscriminantResidual)
    weights = float(model.backbone.logit_scale) * of_global * prompts + of_residual * residual.weights.float()
    return Linear(weights, of_residual * residual.intercepts.float(), F.normalize(prompts, dim=-1))


def encode(backbone: Backbone, images: ImageSet) -> EncodedImages:
    batches = [rows for _, rows in encode_images(backbone, images, InferenceConfig(), default_cache_dir())]
    features, patches = (torch.cat([getattr(rows, of) for rows in batches]) for of in EncodedImages._fields[:2])
    return EncodedImages(features, patches, batches[0].projected)


def rows_of(encoded: EncodedImages, rows: NDArray[np.int64]) -> EncodedImages:
    return encoded._replace(image_features=encoded.image_features[rows], patch_tokens=encoded.patch_tokens[rows])


def fitted_model(backbone: Backbone, photos: Photos, cell: Cell, folder: Path) -> SOTGLP:
    """Return the model of a cell, trained now unless its file is there."""
    file = folder / f"{cell.stem}.safetensors"
    if not file.exists():
        classes, shots, _ = split(photos, cell)
        changes = training_defaults(backbone.name) | ({"epochs": CHOICE_EPOCHS} if cell.stage == "choice" else {})
        training = TrainConfig(**changes, shots=None, seed=cell.draw, remember=False)
        settings = find_method(METHOD).settings_on(Preset(training=training), {})
        fitted = adapt(backbone, photos.train.take(shots), *settings, classes=classes, cache_dir=default_cache_dir())
        save_model(file, fitted.model)
        print(file.name, flush=True)
    model = load_model(file, backbone=backbone).model
    assert isinstance(model, SOTGLP)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--models", type=Path, default=Path("build/ood_models"))
    parser.add_argument("--only", nargs=2, metavar=("STAGE", "SHOTS"), help="models of this stage and number of shots")
    chosen = parser.parse_args()
    chosen.models.mkdir(parents=True, exist_ok=True)
    backbone, loaded = Backbone.load("photo"), {}
    for cell in all_cells():
        if chosen.only and [cell.stage, str(cell.shots)] != chosen.only:
            continue
        if cell.name not in loaded:
            loaded[cell.name] = Photos(backbone, chosen.data, cell.name)
        fitted_model(backbone, loaded[cell.name], cell, chosen.models)


if __name__ == "__main__":
    main()
