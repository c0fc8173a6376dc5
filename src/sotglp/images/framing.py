"""The geometry of open_clip's evaluation transforms: which part of a picture a model sees, and at what scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ResizeMode = Literal["shortest", "longest", "squash"]


@dataclass(frozen=True)
class Frame:
    """A resized picture of ``width`` x ``height`` pixels and the position of a model's input in it.

    ``left`` and ``top`` are the input's first pixel in the resized picture; negative if the picture is padded.
    """

    width: int
    height: int
    left: int
    top: int


def frame_of(width: int, height: int, size: tuple[int, int], mode: ResizeMode) -> Frame:
    """Compute how a picture is resized and cropped or padded to a model's input of ``size`` (height, width).

    The mode ``shortest`` fits the shorter side and crops the longer one, ``longest`` fits the longer side and pads the
    shorter one, ``squash`` changes the aspect ratio. Rounding is that of ``open_clip.transform.image_transform``, and
    of torchvision's ``Resize`` and ``CenterCrop``.
    """
    input_height, input_width = size
    if mode == "squash":
        return Frame(input_width, input_height, 0, 0)
    if mode == "shortest" and input_height == input_width:
        # torchvision truncates the longer side, while open_clip's own resizing rounds it.
        shorter = min(width, height)
        resized_width, resized_height = (int(input_width * side / shorter) for side in (width, height))
    else:
        pick = max if mode == "longest" else min
        ratio = pick(height / input_height, width / input_width)
        resized_width, resized_height = round(width / ratio), round(height / ratio)
    return Frame(
        resized_width,
        resized_height,
        _centred(resized_width, input_width),
        _centred(resized_height, input_height),
    )


def _centred(length: int, wanted: int) -> int:
    """Return where the middle ``wanted`` pixels begin; negative for padding."""
    return -((wanted - length) // 2) if wanted > length else round((length - wanted) / 2)
