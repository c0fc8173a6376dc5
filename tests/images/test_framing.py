"""Frames against open_clip's own transforms, which are shown pictures whose colours tell where each pixel came from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from sotglp.images.framing import frame_of

SIDES = st.integers(9, 300)
MODES = ["shortest", "longest", "squash"]


def seen(width: int, height: int, size: tuple[int, int], mode: str) -> torch.Tensor:
    """Where each pixel of the input lies in the picture, (2, H, W): x and y of its middle, by the transform itself."""
    across = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    down = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    picture = Image.fromarray(np.stack([across, down, across * 0 + 255], axis=2).round().astype(np.uint8))
    config = PreprocessCfg(size=size, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode, interpolation="bilinear")
    pixels = image_transform_v2(config, is_train=False)(picture)
    inside = pixels[2] > 0.99
    places = pixels[:2] * torch.tensor([width - 1, height - 1])[:, None, None] + 0.5
    return torch.where(inside, places, torch.nan)


@settings(max_examples=150, deadline=None)
@given(
    SIDES, SIDES, st.sampled_from([(32, 32), (32, 48), (64, 32)]), st.sampled_from(["shortest", "longest", "squash"])
)
def test_every_pixel_of_the_input_lies_where_the_transform_took_it_from(width, height, size, mode):
    frame = frame_of(width, height, size, mode)
    places = seen(width, height, size, mode)
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    expected = torch.stack([(columns + frame.left) * width / frame.width, (rows + frame.top) * height / frame.height])
    known = ~places.isnan().any(dim=0)
    assert known.any()
    # Colours are rounded to a 255th of a side, and resampling is not linear within a pixel of the picture's border.
    for found, wanted, side, scale in zip(
        places, expected, (width, height), (width / frame.width, height / frame.height), strict=True
    ):
        off = (found - wanted)[known].abs()
        border = ((wanted < 2 * scale + 2) | (wanted > side - 2 * scale - 2))[known]
        assert (off[~border] <= side / 255 + 0.05 * scale + 0.1).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_the_input_s_size_stays_as_it_is(mode):
    frame = frame_of(64, 64, (64, 64), mode)
    assert (frame.width, frame.height, frame.left, frame.top) == (64, 64, 0, 0)


def test_an_odd_margin_is_larger_behind():
    assert frame_of(100, 25, (32, 32), "longest").top == -12
    assert frame_of(96, 27, (32, 32), "longest").top == -11
