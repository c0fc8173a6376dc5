from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from sotglp.runtime.preprocessing import Preprocessing

SIDES = st.integers(1, 150)


@given(
    sides=st.tuples(SIDES, SIDES),
    size=st.sampled_from([(32, 32), (33, 33), (24, 40), (41, 30)]),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear", "random"]),
    fill=st.sampled_from([0, 114, 255]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=200)
def test_pixels_are_those_of_open_clip(
    sides: tuple[int, int], size: tuple[int, int], mode: str, interpolation: str, fill: int, seed: int
) -> None:
    if mode == "longest" and min(sides) * max(size) < max(sides):
        return  # so narrow that open_clip's own transform scales it to nothing
    pixels = np.random.default_rng(seed).integers(0, 256, (*sides, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    mean, std = (0.48, 0.45, 0.4), (0.26, 0.25, 0.3)
    known = PreprocessCfg(size, "RGB", mean, std, interpolation, mode, fill)
    expected = image_transform_v2(known, is_train=False)(image).numpy()
    own = Preprocessing(size, mean, std, interpolation, mode, fill)(image)  # type: ignore[arg-type]
    assert own.dtype == np.float32
    assert own.shape == expected.shape == (3, *size)
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sides", [(1, 900), (900, 1)])
def test_a_strip_is_scaled_too(sides: tuple[int, int]) -> None:
    own = Preprocessing((32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", "longest", 7)
    assert own(Image.new("RGB", sides, "white")).shape == (3, 32, 32)
