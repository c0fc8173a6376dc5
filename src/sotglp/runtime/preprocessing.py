"""Preprocessing of images by Pillow and numpy, equal to open_clip's transform for evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sotglp.images.framing import ResizeMode, frame_of


@dataclass(frozen=True)
class Preprocessing:
    """Settings of the preprocessing, named as in open_clip.

    Attributes
    ----------
    size : tuple of int
        Height and width of the result in pixels.
    mean, std : tuple of float
        Of the three channels, for pixels from 0 to 1.
    interpolation : {"bicubic", "bilinear", "random"}
        Resampling; ``random`` means bicubic at inference.
    resize_mode : {"shortest", "longest", "squash"}
        Side that is scaled to ``size``: the shorter one, followed by a centre crop; the longer one, followed by
        padding; or both, which changes the aspect ratio.
    fill_color : int
        Gray value of the padding.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear", "random"]
    resize_mode: ResizeMode
    fill_color: int

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the pixels of an RGB image, (3, height, width)."""
        values = np.asarray(self.framed(image), dtype=np.float32) / np.float32(255)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return np.ascontiguousarray(((values - mean) / std).transpose(2, 0, 1))

    def framed(self, image: Image.Image) -> Image.Image:
        """Return an RGB image resized, cropped and padded to ``size``; its preprocessing is that of the image."""
        height, width = self.size
        frame = frame_of(*image.size, self.size, self.resize_mode)
        # open_clip always uses bicubic resampling for shapes that are not square.
        is_bilinear = self.interpolation == "bilinear" and (self.resize_mode != "shortest" or height == width)
        resample = Image.Resampling.BILINEAR if is_bilinear else Image.Resampling.BICUBIC
        scaled = image.resize((max(frame.width, 1), max(frame.height, 1)), resample)
        seen = Image.new("RGB", (width, height), (self.fill_color if self.resize_mode == "longest" else 0,) * 3)
        seen.paste(scaled, (-frame.left, -frame.top))
        return seen
