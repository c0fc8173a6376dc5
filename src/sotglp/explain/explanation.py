"""Explain predictions by the patches that each local prompt matches in the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sotglp.console.html import figure_html
from sotglp.console.text import printable
from sotglp.errors import SotglpError
from sotglp.explain.patch_boxes import picture_and_boxes
from sotglp.features.encode import encode_images
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import label_text
from sotglp.images.survey import with_ranges_of
from sotglp.methods.base import AdaptedModel, Outputs
from sotglp.methods.prompt_model import PromptModel
from sotglp.methods.text_features import TextFeatures
from sotglp.scoring import ood
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.predict import text_of
from sotglp.settings import InferenceConfig
from sotglp.transport.plans import patch_mass, shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ClassExplanation:
    """Scores and patch maps of one class.

    Attributes
    ----------
    label : str
        Class name.
    probability : float
        Probability at the calibrated temperature.
    global_score : float
        Mean cosine of the image with the global prompts.
    local_score : float
        Transported cosine of its patches with the local prompts.
    mass : NDArray
        Share of each local prompt's mass on each patch, (N, rows, columns); 0 off the support.
    """

    label: str
    probability: float
    global_score: float
    local_score: float
    mass: NDArray[np.float32]

    @property
    def n_prompts(self) -> int:
        """Number of local prompts of the class, N."""
        return len(self.mass)

    @property
    def scores(self) -> str:
        """Probability and scores in words."""
        return (
            f"probability {self.probability:.1%}, global score (whole image) {self.global_score:.3f}, "
            f"local score (patches) {self.local_score:.3f}"
        )

    @property
    def support(self) -> NDArray[np.bool_]:
        """Whether any prompt puts mass on a patch, (rows, columns)."""
        matched: NDArray[np.bool_] = np.any(self.mass > 0, axis=0)
        return matched


@dataclass(frozen=True)
class Explanation:
    """Prediction for one image, with patch maps of some classes.

    Attributes
    ----------
    image : PIL.Image.Image
        The picture, upright.
    name : str
        Path, or other name, of the image.
    boxes : NDArray
        Left, top, right and bottom of each patch in pixels of the picture, (rows, columns, 4). Patches extend beyond
        the picture if preprocessing pads it.
    classes : tuple of ClassExplanation
        The requested classes.
    probabilities : NDArray
        Of all classes, in the model's order, (C,).
    ood_score : float
        Larger is more in-distribution.
    ood_method, ood_temperature
        Kind of the score; see :func:`sotglp.ood.score`.
    threshold : float or None
        Images with a smaller score are unknown; None if the model isn't calibrated for this score.
    picture_size : tuple of int or None, default None
        Width and height that ``boxes`` refer to, if ``image`` shows only what the model sees of a larger picture.
    """

    image: Image.Image
    name: str
    boxes: NDArray[np.float64]
    classes: tuple[ClassExplanation, ...]
    probabilities: NDArray[np.float32]
    ood_score: float
    ood_method: str
    ood_temperature: float
    threshold: float | None
    picture_size: tuple[int, int] | None = None

    @property
    def is_unknown(self) -> bool | None:
        """Whether the image is rejected as unknown; None without a threshold."""
        return None if self.threshold is None else not self.ood_score >= self.threshold

    @property
    def decision(self) -> str:
        """Whether the image looks like a known class, in words."""
        if self.threshold is None:
            return f"in-distribution score ({self.ood_method}) {self.ood_score:.4g}; no threshold"
        verdict = "looks unlike the known classes" if self.is_unknown else "looks like a known class"
        return f"{verdict} ({self.ood_method} {self.ood_score:.4g}, threshold {self.threshold:.4g})"

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part of the picture that the patches cover."""
        left, top = np.maximum(self.boxes[0, 0, :2], 0)
        right, bottom = np.minimum(self.boxes[-1, -1, 2:], self.picture_size or self.image.size)
        return float(left), float(top), float(right), float(bottom)

    def _repr_html_(self) -> str:
        verdicts = (f"{one.label}, probability {one.probability:.1%}" for one in self.classes)
        verdict = " (unknown)" if self.is_unknown else ""
        return figure_html(self.plot(), f"Patch maps of {self.name}: {'; '.join(verdicts)}{verdict}")

    def plot(self) -> Figure:
        """Draw a row for each class: the picture with its support, then the mass of each local prompt."""
        # matplotlib takes a second to import.
        from sotglp.explain.plot import Canvas, draw_maps

        rows = [(f"{one.label}\n{one.scores}", one.mass) for one in self.classes]
        canvas = Canvas(self.image, self.boxes, self.seen)
        figure: Figure = draw_maps(canvas, f"{printable(self.name)}\n{self.decision}", rows)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-compatible values; patches of the support only, by descending mass."""
        width, height = self.picture_size or self.image.size
        return {
            "path": self.name,
            "width": width,
            "height": height,
            "seen": list(self.seen),
            "ood_score": self.ood_score,
            "ood_method": self.ood_method,
            "ood_temperature": self.ood_temperature,
            "threshold": self.threshold,
            "is_unknown": self.is_unknown,
            "classes": [
                {
                    "label": one.label,
                    "probability": one.probability,
                    "global_score": one.global_score,
                    "local_score": one.local_score,
                    "n_prompts": one.n_prompts,
                    "patches": self._patches(one),
                }
                for one in self.classes
            ],
        }

    def _patches(self, one: ClassExplanation) -> list[dict[str, Any]]:
        rows, columns = one.support.nonzero()
        most_first = np.argsort(-one.mass[:, rows, columns].sum(axis=0), kind="stable")
        return [
            {
                "row": int(row),
                "column": int(column),
                "box": self.boxes[row, column].tolist(),
                "mass": one.mass[:, row, column].tolist(),
            }
            for row, column in zip(rows[most_first], columns[most_first], strict=True)
        ]


def has_maps(model: AdaptedModel) -> bool:
    """Whether a model has a transport plan between patches and prompts, which an explanation needs."""
    return isinstance(model, PromptModel)


def explain(
    model: AdaptedModel,
    image: Any,
    classes: Sequence[str | int] | str | int = 1,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    calibration: Calibration | None = None,
    *,
    text: TextFeatures | None = None,
) -> Explanation:
    """Explain the prediction for one image: a path, a PIL image or a tensor (3, H, W); see :func:`explain_each`."""
    is_tensor = isinstance(image, torch.Tensor | np.ndarray)
    images = ImageSet.from_items(image[None] if is_tensor else [image])
    return next(explain_each(model, images, classes, inference, calibration, text=text))


@torch.no_grad()
def explain_each(
    model: AdaptedModel,
    images: ImageSet,
    classes: Sequence[str | int] | str | int = 1,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    calibration: Calibration | None = None,
    *,
    text: TextFeatures | None = None,
) -> Iterator[Explanation]:
    """Explain the prediction for each image, in order.

    Parameters
    ----------
    model : AdaptedModel
        A trained model with a transport plan.
    images : ImageSet
        The images. Preprocessed images, and those of a backbone with a custom ``preprocess``, are shown as the model's
        input.
    classes : sequence of labels or int, default 1
        Classes to explain, in this order, or the number of the most probable ones.
    inference : InferenceConfig
        How images are read and scored.
    calibration : Calibration or None
        Calibration of the model, for the temperature of probabilities, and for the threshold if ``inference`` has its
        score.
    text : TextFeatures or None
        From :func:`sotglp.scoring.predict.text_of`; None encodes the prompts.

    Raises
    ------
    SotglpError
        If the model has no transport plan, a class doesn't exist, or an image can't be read.

    References
    ----------
    SOT-GLP, arXiv 2603.08347, section on qualitative results.
    """
    if not has_maps(model):
        raise SotglpError(
            f"a {model.kind} model has no transport plan to explain: use SOT-GLP, PLOT, GalLoP, CoOp or LoCoOp"
        )
    chosen = _class_indices(model, classes)
    backbone = model.backbone
    images = with_ranges_of(images, model.value_ranges)
    if text is None:
        text = text_of(model, inference)
    for indices, encoded in encode_images(backbone, images, inference):
        encoded = encoded.to(backbone.device)
        outputs = model.compare(encoded, text)
        assert outputs.plan is not None
        probabilities = model.probabilities(outputs).cpu().numpy()
        if calibration:
            probabilities = calibration.probabilities(probabilities)
        evidence = ood.Evidence(outputs, model, encoded, text)
        scores = ood.score_evidence(evidence, inference.ood_method, inference.temperature)
        for row, index in enumerate(indices.tolist()):
            picture, boxes = picture_and_boxes(backbone, images.images[index], images.ranges)
            class_indices = (
                np.argsort(-probabilities[row], kind="stable")[:chosen] if isinstance(chosen, int) else chosen
            )
            yield Explanation(
                picture,
                images.name(index),
                boxes,
                tuple(_explained(model, outputs, row, int(own), probabilities[row]) for own in class_indices),
                probabilities[row],
                float(scores[row]),
                inference.ood_method,
                inference.temperature,
                inference.threshold_of(calibration),
            )


def _class_indices(model: AdaptedModel, classes: Sequence[str | int] | str | int) -> int | list[int]:
    """Indices of the requested classes, or the number of the most probable ones."""
    if isinstance(classes, int | np.integer):
        if classes < 1:
            raise SotglpError(f"{classes} classes can't be explained: ask for 1 or more")
        return int(classes)
    names = [classes] if isinstance(classes, str) else list(map(label_text, classes))
    if not names:
        raise SotglpError("there is no class to explain: name one or more")
    return [model.class_index(name) for name in names]


def _explained(
    model: AdaptedModel, outputs: Outputs, row: int, class_index: int, probabilities: NDArray[np.float32]
) -> ClassExplanation:
    assert outputs.plan is not None
    assert outputs.support is not None
    one = slice(row, row + 1), slice(class_index, class_index + 1)
    mass = patch_mass(outputs.plan[one], outputs.support[one], model.backbone.n_patches)[0, 0].T  # (N, P)
    return ClassExplanation(
        model.class_names[class_index],
        float(probabilities[class_index]),
        float(outputs.global_logits[row, class_index]),
        float(outputs.local_logits[row, class_index]),
        shares(mass, dim=1).reshape(-1, *model.backbone.patch_grid).cpu().float().numpy(),
    )
