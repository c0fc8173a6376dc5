"""Boxes of a backbone's patches in pixels of the original picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.images.decode import open_image
from sotglp.images.framing import frame_of
from sotglp.images.image_set import ImageSource
from sotglp.images.stored import StoredImage
from sotglp.images.value_range import ValueRanges


def patch_boxes(backbone: Backbone, width: int, height: int) -> NDArray[np.float64]:
    """Compute left, top, right and bottom of each patch in pixels of the original picture, (rows, columns, 4)."""
    settings = backbone.preprocess_settings
    assert settings is not None
    frame = frame_of(width, height, backbone.image_size, settings["resize_mode"])
    resized = _input_boxes(backbone) + np.tile([frame.left, frame.top], 2)
    boxes: NDArray[np.float64] = resized * np.tile([width / frame.width, height / frame.height], 2)
    return boxes


def _input_boxes(backbone: Backbone) -> NDArray[np.float64]:
    """Left, top, right and bottom of each patch in the model's input, (rows, columns, 4)."""
    (rows, columns), (patch_height, patch_width) = backbone.patch_grid, backbone.patch_size
    tops, lefts = np.meshgrid(np.arange(rows) * patch_height, np.arange(columns) * patch_width, indexing="ij")
    return np.stack([lefts, tops, lefts + patch_width, tops + patch_height], axis=-1).astype(np.float64)


def picture_and_boxes(
    backbone: Backbone, source: ImageSource, ranges: ValueRanges
) -> tuple[Image.Image, NDArray[np.float64]]:
    """Return the picture of an image to show, and the boxes of its patches in it; see :func:`open_image`."""
    if isinstance(source, Tensor) and source.dtype == torch.uint8:
        source = Image.fromarray(source.permute(1, 2, 0).numpy())
    if not isinstance(source, Tensor):
        assert not isinstance(source, StoredImage)  # it has no pixels
        picture = open_image(source, ranges)
        if backbone.preprocess_settings is not None:
            return picture, patch_boxes(backbone, *picture.size)
        source = backbone.preprocess(picture)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in backbone.normalisation)
    shown = (source.cpu().float() * deviation + mean).clamp(0, 1) * 255
    return Image.fromarray(shown.round().byte().permute(1, 2, 0).numpy()), _input_boxes(backbone)
