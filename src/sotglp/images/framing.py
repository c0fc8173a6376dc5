"""Which part of a picture a model sees, and at what scale: the geometry of open_clip's evaluation transforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ResizeMode = Literal["shortest", "longest", "squash"]


@dataclass(frozen=True)
class Frame:
    """A picture is resized to ``width`` x ``height`` pixels; the input begins at ``left``, ``top`` there.

    Attributes
    ----------
    width, height : int
        Size of the resized picture.
    left, top : int
        Where the input's first pixel lies in the resized picture; negative where a margin is put around it.
    """

    width: int
    height: int
    left: int
    top: int


def frame_of(width: int, height: int, size: tuple[int, int], mode: ResizeMode) -> Frame:
    """Find how a picture goes into a model's input.

    Parameters
    ----------
    width, height : int
        Size of the picture in pixels.
    size : (int, int)
        Height and width of the input.
    mode : {"shortest", "longest", "squash"}
        ``shortest`` fits the shorter side and cuts off the rest of the longer one, ``longest`` fits the longer side
        and puts a margin around the shorter one, ``squash`` changes the proportions.

    References
    ----------
    ``open_clip.transform.image_transform``, and torchvision's ``Resize`` and ``CenterCrop``, to the last rounding.
    """
    input_height, input_width = size
    if mode == "squash":
        return Frame(input_width, input_height, 0, 0)
    if mode == "shortest" and input_height == input_width:
        # torchvision cuts the longer side off where open_clip's own resizing rounds it.
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
    """Where the middle part of ``wanted`` pixels begins; negative for a margin."""
    return -((wanted - length) // 2) if wanted > length else round((length - wanted) / 2)
