import warnings

import numpy as np
import pytest
import torch

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.images.arrays import rows_of
from sotglp.images.image_set import ImageSet

PIXELS = np.arange(2 * 3 * 8 * 6, dtype=np.uint8).reshape(2, 3, 8, 6)


@pytest.mark.parametrize("as_given", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize(
    ("values", "words"),
    [(PIXELS / 255.0, "from 0 to 1,"), (PIXELS * 1.0, "from 0 to 255,"), (PIXELS * 16.0 - 1000, "from -1000 to")],
)
def test_floats_that_nobody_normalised_are_reported(as_given, values, words):
    values = np.clip(values, values.min(), 255) if "255" in words else values
    values = np.where(values == values.max(), 255.0, values) if "255" in words else values
    with pytest.warns(SotglpWarning, match=words) as caught:
        rows = rows_of(as_given(values))
    assert len(caught) == 1
    np.testing.assert_array_equal(rows[1].numpy(), values[1].astype(np.float32))


def test_mask_values_in_uint8_are_reported():
    with pytest.warns(SotglpWarning, match="multiply them by 255"):
        rows_of(PIXELS % 2)


@pytest.mark.parametrize("values", [PIXELS, PIXELS / 127.5 - 1, PIXELS[:0], (PIXELS / 60.0 - 1.8).astype(np.float16)])
def test_other_values_are_taken_as_they_are(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(rows_of(values)) == len(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (PIXELS.transpose(0, 2, 3, 1), r"images\.transpose\(0, 3, 1, 2\)"),
        (torch.from_numpy(PIXELS).permute(0, 2, 3, 1), r"images\.permute\(0, 3, 1, 2\)"),
        (PIXELS[0], r"one image, so give images\[None\]"),
        (PIXELS[0].transpose(1, 2, 0), r"images\.transpose\(2, 0, 1\)\[None\]"),
        (PIXELS[:, :1], "gray channel"),
        (PIXELS[:, 0], "gray"),
        (np.zeros((2, 8, 6, 4), np.uint8), "alpha"),
        (PIXELS.astype(np.int64), r"astype\(numpy\.uint8\)"),
        (torch.from_numpy(PIXELS).int(), r"to\(torch\.uint8\)"),
    ],
)
def test_other_shapes_and_types_are_refused_with_the_conversion(values, words):
    with pytest.raises(SotglpError, match=words):
        rows_of(values)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_name_the_image(value):
    values = PIXELS / 127.5 - 1
    values[1, 2, 3, 4] = value
    with pytest.raises(SotglpError, match="image 1 has pixels that are NaN or infinite"):
        rows_of(values)


@pytest.mark.parametrize(
    ("images", "words"), [(list(PIXELS), r"numpy\.stack"), ([torch.zeros(3, 2, 2)], r"torch\.stack")]
)
def test_a_list_of_arrays_is_refused_with_the_conversion(images, words):
    with pytest.raises(SotglpError, match=words):
        ImageSet.from_items(images)
