"""Near OOD on photos: classes left out in turn, our scores beside those of pytorch-ood, with 1 to 16 shots.

``python benchmarks/ood_scores.py --data ../shared/data`` writes the scores of all images to build/ood_scores, continues
where it was interrupted, and writes docs/near_ood_measured.md; ``--fitted`` adds models of SOT-GLP, which take most of
the time.
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

from ood_page import PEER, TITLES, write_page
from pytorch_ood_scores import Compared, peer_scores
from sotglp.backbone import Backbone
from sotglp.backbone_defaults import training_defaults
from sotglp.features.cache_folder import default_cache_dir
from sotglp.features.encode import encode_images
from sotglp.features.rows import EncodedImages
from sotglp.images.few_shot import deal_folds, draw_shots
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.shot_features import build_shot_memory
from sotglp.methods.shot_memory import ShotMemory, unit_features
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring.ood import SCORES, Evidence, score_evidence
from sotglp.settings import InferenceConfig, ModelConfig, TrainConfig
from sotglp.training.fit import adapt

SETS = (
    *("ship/trash", "ship/clothing", "ship/grocery", "eurosat", "pacs_photo", "rsscn7", "flowers102", "cifar10"),
    "caltech101",
)
FOLDS = 3
SEED = 1
FAR = {"other_things": "ship/ood/other_things", "caltech_background": "ood/caltech_background"}
METALS = ("azure_fork", "azure_scissors")
BATCH = 64
ALL_SHOTS = (16, 8, 4, 2, 1)
ONLY_SHOTS = ("mahalanobis", "knn", "subspace")
"""Scores that use nothing but features of shots, measured for each number of them."""

Scores = dict[str, NDArray[np.float64]]


class Cell(NamedTuple):
    """One model: its kind, the set, the left-out classes, and the shots of each of the others.

    The kind "shots" is no model: only the scores ``ONLY_SHOTS`` are computed.
    """

    kind: str
    name: str
    fold: int
    shots: int


def file_of(cell: Cell, folder: Path) -> Path:
    return folder / f"{cell.kind}-{cell.name.replace('/', '_')}-{cell.shots}-shots-fold-{cell.fold}.npz"


def all_cells(*, fitted: bool) -> list[Cell]:
    """Cells, the cheap ones first."""
    cells = [Cell("shots", name, fold, shots) for shots, fold, name in product(ALL_SHOTS, range(FOLDS), SETS)]
    for kind in TITLES if fitted else ("zero-shot",):
        cells += [Cell(kind, name, fold, 16) for fold, name in product(range(FOLDS), SETS)]
    return cells


class Encoded:
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


def encode(backbone: Backbone, images: ImageSet) -> EncodedImages:
    batches = [rows for _, rows in encode_images(backbone, images, InferenceConfig(), default_cache_dir())]
    features, patches = (torch.cat([getattr(rows, of) for rows in batches]) for of in EncodedImages._fields[:2])
    return EncodedImages(features, patches, batches[0].projected)


def rows_of(encoded: EncodedImages, rows: NDArray[np.int64]) -> EncodedImages:
    return encoded._replace(image_features=encoded.image_features[rows], patch_tokens=encoded.patch_tokens[rows])


def parts_of(images: Encoded, known: NDArray[np.bool_], shots: NDArray[np.int64]) -> dict[str, EncodedImages]:
    """Images by what they are; ``known`` are the classes (C,) of the model, and ``shots`` indices of training images.

    Training images that are no shots, and those of the left-out classes, are what scores are chosen on.
    """
    rest = np.setdiff1d(np.flatnonzero(known[images.targets["train"]]), shots)
    is_known = known[images.targets["test"]]
    parts = {
        "unknown train": rows_of(images.encoded["train"], np.flatnonzero(~known[images.targets["train"]])),
        "known test": rows_of(images.encoded["test"], np.flatnonzero(is_known)),
        "unknown test": rows_of(images.encoded["test"], np.flatnonzero(~is_known)),
        **{far: images.encoded[far] for far in FAR if far in images.encoded},
    }
    return parts | ({"known train": rows_of(images.encoded["train"], rest)} if len(rest) else {})


def own_scores(model: AdaptedModel, encoded: EncodedImages) -> tuple[Scores, Compared]:
    """Scores of n images by name, and what other detectors need."""
    text, found, logits = model.encode_text(), [], []
    for start in range(0, len(encoded.image_features), BATCH):
        batch = rows_of(encoded, np.arange(start, min(start + BATCH, len(encoded.image_features))))
        outputs = model.compare(batch, text)
        evidence = Evidence(outputs, model, batch, text)
        found.append({name: score_evidence(evidence, name, 1.0).double().numpy() for name in SCORES})
        logits.append(model.logits(outputs).float())
    scores = {name: np.concatenate([one[name] for one in found]) for name in SCORES}
    return scores, Compared(F.normalize(encoded.image_features.float(), dim=-1), torch.cat(logits))


def head_of(model: AdaptedModel) -> Tensor:
    """Weights (C, d) of the linear head on unit features that the global branch is."""
    vectors = F.normalize(model.encode_text().global_.float(), dim=-1).mean(dim=1)
    return float(model.backbone.logit_scale) * vectors


def shot_scores(memory: ShotMemory, parts: dict[str, EncodedImages], *, cross_fitted: bool) -> Scores:
    """Scores of the images of each part by the shots alone, and the share of known test images that pass.

    They pass a threshold that accepts 95 % of the shots, each scored without its fold of five.
    """
    compute = {"mahalanobis": ShotMemory.mahalanobis, "knn": ShotMemory.nearest, "subspace": ShotMemory.subspace}
    found = {
        f"{part}/{name}": compute[name](memory, encoded.image_features).double().numpy()
        for part, encoded in parts.items()
        for name in ONLY_SHOTS
    }
    folds = deal_folds(memory.classes.numpy(), 5)
    for name in ONLY_SHOTS if folds.any() and cross_fitted else ():
        held_out = np.empty(len(folds))
        for fold in range(folds.max() + 1):
            others = memory.of_rows(np.flatnonzero(folds != fold).tolist())
            held_out[folds == fold] = compute[name](others, memory.features[folds == fold]).numpy()
        rank = int((len(folds) + 1) * 0.05)
        threshold = np.sort(held_out)[rank - 1] if rank else -np.inf
        found[f"accepted/{name}"] = np.array([(found[f"known test/{name}"] >= threshold).mean()])
    return found


@torch.no_grad()
def measure(backbone: Backbone, images: Encoded, cell: Cell) -> Scores:
    """Scores of the images of each part, named ``part/score``."""
    known = np.random.default_rng(SEED).permutation(len(images.classes)).argsort() % FOLDS != cell.fold
    classes = [name for name, is_known in zip(images.classes, known, strict=True) if is_known]
    of_known = np.flatnonzero(known[images.targets["train"]])
    drawn = of_known[draw_shots([images.classes[t] for t in images.targets["train"][of_known]], cell.shots, SEED)]
    shots, cache, parts = images.train.take(drawn), default_cache_dir(), parts_of(images, known, drawn)
    targets = torch.from_numpy(shots.targets(classes))
    if cell.kind == "shots":
        features = unit_features(images.encoded["train"].image_features[drawn])
        return shot_scores(ShotMemory(features, features, targets), parts, cross_fitted=cell.fold == 0)
    model: AdaptedModel = ZeroShot(backbone, classes).eval()
    if cell.kind == "sot-glp":
        config = TrainConfig(**training_defaults(backbone.name), shots=None, seed=SEED)
        with torch.enable_grad():
            model = adapt(backbone, shots, ModelConfig(), config, classes=classes, cache_dir=cache).model.eval()
    else:
        model.shots = build_shot_memory(model, shots, InferenceConfig(), cache_dir=cache)
    found: Scores = {}
    of_parts = {}
    for part, encoded in parts.items():
        scores, of_parts[part] = own_scores(model, encoded)
        found |= {f"{part}/{name}": values for name, values in scores.items()}
    _, of_shots = own_scores(model, rows_of(images.encoded["train"], drawn))
    for name, peers in peer_scores(of_shots, targets, head_of(model), of_parts).items():
        found |= {f"{part}/{PEER}{name}": values for part, values in peers.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the sets; without it, only the page is written")
    parser.add_argument("--rows", type=Path, default=Path("build/ood_scores"))
    parser.add_argument("--fitted", action="store_true", help="train SOT-GLP too")
    chosen = parser.parse_args()
    chosen.rows.mkdir(parents=True, exist_ok=True)
    if chosen.data:
        backbone, loaded = Backbone.load("photo"), {}
        for cell in all_cells(fitted=chosen.fitted):
            file = file_of(cell, chosen.rows)
            if not file.exists():
                if cell.name not in loaded:
                    loaded[cell.name] = Encoded(backbone, chosen.data, cell.name)
                scores = measure(backbone, loaded[cell.name], cell)
                partial = file.with_suffix(".partial.npz")
                np.savez(partial, **{name: values.astype(np.float32) for name, values in scores.items()})
                partial.rename(file)
                print(file.name, flush=True)
    write_page(chosen.rows)


if __name__ == "__main__":
    main()
