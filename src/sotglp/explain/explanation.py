"""Why a model says what it says of an image: which patches each local prompt took, laid on the picture itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.errors import SotglpError
from sotglp.features.encode import encode_images
from sotglp.images.decode import open_image
from sotglp.images.framing import frame_of
from sotglp.images.image_set import ImageSet, ImageSource
from sotglp.methods.base import AdaptedModel, Outputs
from sotglp.methods.sot_glp import SOTGLP
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
    """What speaks for one class.

    Attributes
    ----------
    label : str
        The class.
    probability : float
        Of this class, at the calibrated temperature.
    global_score : float
        Mean cosine of the image with the global prompts.
    local_score : float
        Transported cosine of its patches with the local prompts.
    mass : NDArray
        Share of its mass that each local prompt puts on each patch, (N, rows, columns); 0 off the support.
    """

    label: str
    probability: float
    global_score: float
    local_score: float
    mass: NDArray[np.float32]

    @property
    def n_prompts(self) -> int:
        """Local prompts of the class, N."""
        return len(self.mass)

    @property
    def support(self) -> NDArray[np.bool_]:
        """Whether some prompt takes a patch, (rows, columns)."""
        taken: NDArray[np.bool_] = np.any(self.mass > 0, axis=0)
        return taken


@dataclass(frozen=True)
class Explanation:
    """What a model says of one image, and where in the image it looked.

    Attributes
    ----------
    image : PIL.Image.Image
        The picture, upright, as it was given.
    name : str
        Its path, or what else it is known by.
    boxes : NDArray
        Left, top, right and bottom of each patch in pixels of the picture, (rows, columns, 4). A patch lies partly
        or wholly beside the picture where the model puts a margin around it.
    classes : tuple of ClassExplanation
        The classes that were asked for.
    probabilities : NDArray
        Of all classes, in the model's order, (C,).
    ood_score : float
        Larger is more in-distribution.
    ood_method, ood_temperature
        What kind of score it is; see :func:`sotglp.ood.score`.
    threshold : float or None
        Images that score lower are unknown; None of a model that is not calibrated for this score.
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

    @property
    def is_unknown(self) -> bool | None:
        """Whether the image is taken to be of none of the classes; None without a threshold."""
        return None if self.threshold is None else self.ood_score < self.threshold

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part of the picture that the patches cover."""
        left, top = np.maximum(self.boxes[0, 0, :2], 0)
        right, bottom = np.minimum(self.boxes[-1, -1, 2:], self.image.size)
        return float(left), float(top), float(right), float(bottom)

    def plot(self) -> Figure:
        """Draw a row for each class: the picture with the support, and what each prompt took of it."""
        from sotglp.explain.plot import draw_explanation

        figure: Figure = draw_explanation(self)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Plain values for programs; of the patches those that some prompt took, the most taken first."""
        return {
            "path": self.name,
            "width": self.image.width,
            "height": self.image.height,
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
    """Whether a model matches patches with prompts by a plan, which shows where it looked."""
    return isinstance(model, SOTGLP)


def explain(
    model: AdaptedModel,
    image: Any,
    classes: Sequence[str] | int = 1,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    calibration: Calibration | None = None,
    *,
    text: TextFeatures | None = None,
) -> Explanation:
    """Tell what a model saw in one image: a path, a PIL image or a tensor (3, H, W); see :func:`explain_each`."""
    is_tensor = isinstance(image, torch.Tensor | np.ndarray)
    images = ImageSet.from_items(image[None] if is_tensor else [image])
    return next(explain_each(model, images, classes, inference, calibration, text=text))


@torch.no_grad()
def explain_each(
    model: AdaptedModel,
    images: ImageSet,
    classes: Sequence[str] | int = 1,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    calibration: Calibration | None = None,
    *,
    text: TextFeatures | None = None,
) -> Iterator[Explanation]:
    """Tell for each image, in order, what a model saw in it.

    Parameters
    ----------
    model : AdaptedModel
        A trained model with a transport plan.
    images : ImageSet
        The images. Of preprocessed ones, and with a ``preprocess`` that was given to the backbone by hand, the picture
        is the one that the model was shown, for nobody knows from which part of a larger one it was made.
    classes : sequence of str or int, default 1
        Classes to explain, in this order; or how many of the most probable ones.
    inference : InferenceConfig
        How images are read and scored.
    calibration : Calibration or None
        The model's; it sets the temperature of probabilities, and the threshold where ``inference`` asks for its score.
    text : TextFeatures or None
        From :func:`sotglp.scoring.predict.text_of`, if they are known already.

    Raises
    ------
    SotglpError
        If the model has no transport plan, there is no such class, or an image can't be read.

    References
    ----------
    SOT-GLP, arXiv 2603.08347, section on qualitative results.
    """
    if not has_maps(model):
        raise SotglpError(
            f"a model of kind {model.kind} has no transport plan that could show where it looked: explain one of "
            "SOT-GLP, PLOT, GalLoP, CoOp or LoCoOp"
        )
    chosen = _positions(model, classes)
    backbone = model.backbone
    if text is None:
        text = text_of(model, inference)
    for indices, encoded in encode_images(backbone, images, inference):
        encoded = encoded.to(backbone.device)
        outputs = model.compare(encoded, text)
        assert outputs.plan is not None
        probabilities = model.probabilities(outputs).cpu().numpy()
        if calibration:
            probabilities = calibration.probabilities(probabilities)
        evidence = ood.Evidence(outputs, model, encoded)
        scores = ood.score_evidence(evidence, inference.ood_method, inference.temperature)
        for row, index in enumerate(indices.tolist()):
            picture, boxes = _picture(backbone, images.images[index])
            positions = np.argsort(-probabilities[row], kind="stable")[:chosen] if isinstance(chosen, int) else chosen
            yield Explanation(
                picture,
                images.name(index),
                boxes,
                tuple(_explained(model, outputs, row, int(position), probabilities[row]) for position in positions),
                probabilities[row],
                float(scores[row]),
                inference.ood_method,
                inference.temperature,
                inference.threshold_of(calibration),
            )


def patch_boxes(backbone: Backbone, width: int, height: int) -> NDArray[np.float64]:
    """Where each patch lies in a picture, its resizing and cropping undone.

    Parameters
    ----------
    backbone : Backbone
        With a preprocessing of open_clip.
    width, height : int
        Size of the picture in pixels.

    Returns
    -------
    NDArray
        Left, top, right and bottom in pixels, (rows, columns, 4).
    """
    settings = backbone.preprocess_settings
    assert settings is not None
    frame = frame_of(width, height, backbone.image_size, settings["resize_mode"])
    # left, top, right, bottom of the patches in the resized picture, then in the picture itself
    resized = _input_boxes(backbone) + np.tile([frame.left, frame.top], 2)
    boxes: NDArray[np.float64] = resized * np.tile([width / frame.width, height / frame.height], 2)
    return boxes


def _input_boxes(backbone: Backbone) -> NDArray[np.float64]:
    """Left, top, right and bottom of each patch in the model's input, (rows, columns, 4)."""
    (rows, columns), (patch_height, patch_width) = backbone.patch_grid, backbone.patch_size
    tops, lefts = np.meshgrid(np.arange(rows) * patch_height, np.arange(columns) * patch_width, indexing="ij")
    return np.stack([lefts, tops, lefts + patch_width, tops + patch_height], axis=-1).astype(np.float64)


def _picture(backbone: Backbone, source: ImageSource) -> tuple[Image.Image, NDArray[np.float64]]:
    """A picture for people, and where its patches lie in it."""
    if isinstance(source, Tensor) and source.dtype == torch.uint8:
        source = Image.fromarray(source.permute(1, 2, 0).numpy())
    if not isinstance(source, Tensor):
        picture = open_image(source)
        if backbone.preprocess_settings is not None:
            return picture, patch_boxes(backbone, *picture.size)
        source = backbone.preprocess(picture)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in backbone.normalisation)
    shown = (source.cpu().float() * deviation + mean).clamp(0, 1) * 255
    return Image.fromarray(shown.round().byte().permute(1, 2, 0).numpy()), _input_boxes(backbone)


def _positions(model: AdaptedModel, classes: Sequence[str] | int) -> int | list[int]:
    """Positions of the classes wanted, or how many of the most probable ones."""
    if isinstance(classes, int):
        if classes < 1:
            raise SotglpError(f"{classes} classes can't be explained: ask for 1 at least")
        return classes
    names = [classes] if isinstance(classes, str) else list(map(str, classes))
    if not names:
        raise SotglpError("no class is named that could be explained: name one at least")
    return [model.class_index(name) for name in names]


def _explained(
    model: AdaptedModel, outputs: Outputs, row: int, position: int, probabilities: NDArray[np.float32]
) -> ClassExplanation:
    assert outputs.plan is not None
    assert outputs.support is not None
    one = slice(row, row + 1), slice(position, position + 1)
    mass = patch_mass(outputs.plan[one], outputs.support[one], model.backbone.n_patches)[0, 0].T  # (N, P)
    return ClassExplanation(
        model.class_names[position],
        float(probabilities[position]),
        float(outputs.global_logits[row, position]),
        float(outputs.local_logits[row, position]),
        shares(mass, dim=1).reshape(-1, *model.backbone.patch_grid).cpu().float().numpy(),
    )
