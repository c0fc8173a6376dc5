"""Small pictures for a page, and where a model looked in them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sotglp.explain.explanation import ClassExplanation, Explanation

LONGEST_SIDE = 240
QUALITY = 82


@dataclass(frozen=True)
class Thumbnail:
    """A picture of ``width`` x ``height`` pixels as a data URI of a JPEG."""

    width: int
    height: int
    uri: str

    @classmethod
    def of(cls, picture: Image.Image) -> Thumbnail:
        """Shrink a picture until its longer side has ``LONGEST_SIDE`` pixels; a smaller one stays as large as it is."""
        small = picture.copy()
        small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        return cls(*small.size, "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())


@dataclass(frozen=True, eq=False)
class ClassMap(ClassExplanation):
    """What speaks for a class, and where its local prompts looked in a thumbnail.

    Attributes
    ----------
    boxes : NDArray
        Left, top, right and bottom of each patch in pixels of the thumbnail, (rows, columns, 4).
    """

    boxes: NDArray[np.float64]

    @property
    def together(self) -> NDArray[np.float32]:
        """Mean of the prompts' masses, (rows, columns)."""
        mean: NDArray[np.float32] = self.mass.mean(axis=0)
        return mean


@dataclass(frozen=True)
class Looked:
    """A thumbnail, and where a model looked in it for each of some classes."""

    thumbnail: Thumbnail
    maps: tuple[ClassMap, ...]

    @classmethod
    def of(cls, explanation: Explanation, labels: tuple[str, ...]) -> Looked:
        """Shrink what an explanation says of these classes, which are among its own."""
        thumbnail = Thumbnail.of(explanation.image)
        across, down = thumbnail.width / explanation.image.width, thumbnail.height / explanation.image.height
        boxes = explanation.boxes * np.array([across, down, across, down])
        explained = {one.label: one for one in explanation.classes}
        return cls(thumbnail, tuple(ClassMap(**vars(explained[label]), boxes=boxes) for label in labels))
