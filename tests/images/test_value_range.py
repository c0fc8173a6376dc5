import io

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from sotglp.images.decode import open_image, read_losses
from sotglp.images.value_range import Depth, checked_ranges, range_of, range_of_set

# A gradient from 0 to 255, which every depth stores in its own way.
GRADIENT = np.tile(np.arange(256, dtype=np.uint8), (8, 1))


def stored(values: np.ndarray, kind: str = "TIFF", **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(values).save(content, kind, **options)
    return content.getvalue()


def seen(source: object, **ranges: tuple[float, float]) -> np.ndarray:
    return np.asarray(open_image(source, ranges))[..., 0].astype(int)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_unsigned_values_of_any_depth_show_the_same(kind, bits):
    values = GRADIENT.astype(np.uint16) * ((2**bits - 1) // 255)
    assert np.abs(seen(stored(values, kind)) - GRADIENT).max() <= 4
    assert np.ptp(seen(stored(values, kind))) > 245


@pytest.mark.parametrize(
    "values",
    [
        GRADIENT.astype(np.int32) * 8 - 1000,
        GRADIENT.astype(np.int16) * 8 - 1000,
        GRADIENT.astype(np.int32) * 4096,
        GRADIENT.astype(np.uint16) * 4 + 32768,
        GRADIENT.astype(np.float32) / 255,
        GRADIENT.astype(np.float32) / 255e3,
        GRADIENT.astype(np.float32) / 127.5 - 1,
        GRADIENT.astype(np.float32),
        GRADIENT.astype(np.float32) * 16,
        GRADIENT.astype(np.float32) * 257,
        GRADIENT.astype(np.float32) * 1e6,
    ],
)
def test_signed_offset_and_float_values_show_the_same(values):
    found = seen(stored(values)) if values.dtype != np.int16 else seen(Image.fromarray(values.astype(np.int32)))
    assert np.abs(found - GRADIENT).max() <= 4


def test_single_hot_pixels_do_not_darken_an_image():
    values = GRADIENT.astype(np.uint16) * 16
    values[3, 4] = 65535
    assert np.ptp(seen(stored(values))) > 245


def test_a_range_of_the_set_overrules_the_values_of_one_image():
    dark = GRADIENT.astype(np.uint16)
    assert seen(stored(dark), uint16=(0, 4095)).max() == 255 // 16
    assert seen(stored(dark), float32=(0, 1)).max() == 255


def test_what_a_file_declares_overrules_the_range_of_the_set():
    values = GRADIENT.astype(np.uint16)
    full = {"uint16": (0.0, 65535.0)}
    declared = TiffImagePlugin.ImageFileDirectory_v2()
    declared[281] = 4095
    assert np.asarray(open_image(stored(values, tiffinfo=declared), full)).max() == 255 // 16
    declared = TiffImagePlugin.ImageFileDirectory_v2()
    declared[281] = 200  # a statistic
    assert np.asarray(open_image(stored(values, tiffinfo=declared), full)).max() == 0
    pgm = b"P5 256 8 4095\n" + (values * 16).astype(">u2").tobytes()
    assert np.abs(seen(pgm, uint16=(0, 255), int32=(0, 255)) - GRADIENT).max() <= 1


def test_the_range_of_a_set_covers_all_of_its_images():
    depths = [
        Depth("uint16", None, 3, 200),
        Depth("uint16", None, 10, 3000),
        Depth("uint16", (0, 16383), 0, 16000),
        Depth("float32", None, -1, 0.5),
        Depth("float32", None, 0, 2),
    ]
    assert range_of_set(depths) == {"uint16": (0, 4095), "float32": (-1, 2)}


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
@pytest.mark.parametrize(("low", "high"), [(0, 0), (7, 7), (-5, -5), (3e9, 3e9), (0, 1e-30), (-1e36, 1e36)])
def test_every_pair_of_extremes_has_a_range(kind, low, high):
    black, white = range_of(kind, low, high)
    assert black < white
    assert checked_ranges({kind: [black, white]}) == {kind: (black, white)}


def test_the_depth_of_a_file_is_read():
    values = GRADIENT.astype(np.uint16) * 16
    depth, has_pages, _ = read_losses(stored(values))
    assert depth is not None
    assert depth.kind == "uint16"
    assert depth.declared is None
    assert depth.high > 4000
    assert not has_pages
    page = Image.fromarray(GRADIENT)
    assert read_losses(stored(GRADIENT, save_all=True, append_images=[page])) == (None, True, False)


@pytest.mark.parametrize(
    "raw",
    [
        [],
        {"uint8": [0, 1]},
        {"uint16": [1, 0]},
        {"uint16": [0]},
        {"int32": ["0", 1]},
        {"float32": [0, 1e39]},
        {"uint16": [0, float("nan")]},
        {"uint16": [True, 2]},
        {"uint16": [0, 10**400]},
    ],
)
def test_damaged_ranges_of_a_record_are_refused(raw):
    with pytest.raises(ValueError, match="value_ranges"):
        checked_ranges(raw)
