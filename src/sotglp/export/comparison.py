"""Comparison of an exported file with its model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sotglp.export.graph import compute
from sotglp.features.views import in_order
from sotglp.images.image_set import ImageSet
from sotglp.images.survey import with_ranges_of
from sotglp.images.views import load_batches
from sotglp.methods.base import AdaptedModel
from sotglp.runtime.model import PortableModel
from sotglp.scoring.temperature import tempered
from sotglp.settings import InferenceConfig

TOLERANCE = 1e-4
"""Largest permitted difference from the model; relative for OOD scores above 1."""

TIE = 1e-5
"""Rounding may exchange patches whose cosines differ by less."""

NOISE_IMAGES = 8
NOISE_SEED = 0
BATCH = 7
"""Another batch size than the one of the trace."""

CALIBRATION_BATCHES = 10
"""Batches of images on which the ranges of feature maps are measured."""


class Comparison(NamedTuple):
    """Number of images, largest differences by output, and share of images with the same label."""

    n_checked: int
    differences: dict[str, float]
    same_labels: float


class Reference:
    """A model, with random noise and the given images to compare files on."""

    def __init__(
        self, model: AdaptedModel, check: ImageSet | None, inference: InferenceConfig, temperature: float
    ) -> None:
        height, width = model.backbone.image_size
        generator = torch.Generator().manual_seed(NOISE_SEED)
        self._noise = torch.randn(NOISE_IMAGES, 3, height, width, generator=generator).split(BATCH)
        self._pictures: list[Tensor] = []
        if check is not None:
            check = with_ranges_of(check, model.value_ranges)
            loaded = load_batches(check, model.backbone.preprocess, in_order(len(check), BATCH))
            self._pictures = [pixels for _, pixels in loaded]
        self._model, self._inference, self._temperature = model, inference, temperature

    def calibration_batches(self) -> list[NDArray[np.float32]]:
        """Return some batches of the given images, evenly spaced."""
        step = -(-len(self._pictures) // CALIBRATION_BATCHES)
        return [pixels.numpy() for pixels in self._pictures[::step]]

    @torch.no_grad()
    def compare(self, portable: PortableModel, *, with_noise: bool = True) -> Comparison:
        """Compare a file with the model on the given images and, if ``with_noise``, on noise."""
        largest: dict[str, float] = {}
        same_labels: list[bool] = []
        text = self._model.encode_text()
        for pixels in [*(self._noise if with_noise else ()), *self._pictures]:
            computed = compute(self._model, pixels, text, self._inference.ood_method, self._inference.temperature)
            probabilities = tempered(computed.probabilities.cpu().numpy(), self._temperature)
            scores = computed.ood_score.cpu().numpy()
            got = portable.run(pixels.numpy())
            same = got[2] == probabilities.argmax(axis=1)
            same_labels += same.tolist()
            found = {
                "probabilities": np.abs(got[0] - probabilities).max(),
                "ood_score": (np.abs(got[1] - scores) / np.maximum(np.abs(scores), 1)).max(),
            }
            if computed.maps is not None:
                cosines = (
                    computed.outputs.patch_logits[torch.arange(len(pixels)), :, computed.label_index].cpu().numpy()
                )
                # Where rounding decides between two equally probable classes, maps are of either.
                maps = zip(got[3][same], computed.maps.cpu().numpy()[same], cosines[same], strict=True)
                found["maps"] = max((_map_difference(*row) for row in maps), default=0.0)
            largest = {name: float(np.maximum(value, largest.get(name, 0))) for name, value in found.items()}
        return Comparison(len(same_labels), largest, float(np.mean(same_labels)))


def _map_difference(one: NDArray[np.float32], other: NDArray[np.float32], cosines: NDArray[np.float32]) -> float:
    """Return the largest difference of maps (N, P), except for patches with equal cosines (P,): either is right."""
    differences = np.abs(one - other)
    exchanged = differences.max(axis=0) > TOLERANCE
    if exchanged.any() and np.ptp(cosines[exchanged]) < TIE:
        return 0.0
    return float(differences.max())
