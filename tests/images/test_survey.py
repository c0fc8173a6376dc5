import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sotglp.errors import SotglpWarning
from sotglp.images.check import check_set, readable_images
from sotglp.images.image_set import ImageSet
from sotglp.images.survey import is_nearly_uniform, with_own_ranges, with_ranges_of

NOISE = np.random.default_rng(0).integers(0, 256, (20, 20))


@pytest.fixture
def deep(tmp_path: Path) -> ImageSet:
    """Eight PNG files of 16 bits that hold 12, four of them dark."""
    paths = []
    for k in range(8):
        values = NOISE.astype(np.uint16) * (16 if k % 2 else 1)
        Image.fromarray(values).save(tmp_path / f"{k}.png")
        paths.append(tmp_path / f"{k}.png")
    return ImageSet(tuple(paths), tuple("ab" * 4))


def messages(call: object) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()  # type: ignore[operator]
    return [str(one.message) for one in caught if one.category is SotglpWarning]


def test_a_set_is_scaled_by_one_range_which_is_reported(deep):
    with pytest.warns(SotglpWarning, match="8 images of uint16 values .* 0 to 4095"):
        ranged = with_own_ranges(deep)
    assert ranged.ranges == {"uint16": (0, 4095)}
    assert ranged.take([1]).ranges == ranged.ranges
    assert messages(lambda: with_own_ranges(ranged)) == []


def test_ordinary_images_and_full_ranges_need_no_word(tmp_path):
    Image.fromarray(NOISE.astype(np.uint16) * 257).save(tmp_path / "a.png")
    Image.fromarray((NOISE / 255).astype(np.float32)).save(tmp_path / "b.tif")
    Image.fromarray(NOISE.astype(np.uint8)).save(tmp_path / "c.jpg")
    images = ImageSet(tuple(tmp_path / name for name in ("a.png", "b.tif", "c.jpg")))
    assert messages(lambda: with_own_ranges(images)) == []
    assert with_own_ranges(images.take([2])).ranges == {}


def test_images_outside_a_models_range_are_reported(deep, tmp_path):
    (said,) = messages(lambda: with_ranges_of(deep, {"uint16": (0, 16383)}))
    assert "4 images, such as" in said
    assert "nearly uniform" in said
    (said,) = messages(lambda: with_ranges_of(deep, {}))
    assert "the model wasn't fitted on" in said
    Image.fromarray(NOISE.astype(np.uint16) + 20000).save(tmp_path / "bright.png")
    (said,) = messages(lambda: with_ranges_of(ImageSet((tmp_path / "bright.png",)), {"uint16": (0, 4095)}))
    assert "bright.png is nearly uniform" in said


def test_files_of_several_pages_are_reported(tmp_path):
    page = Image.fromarray(NOISE.astype(np.uint8))
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    images = ImageSet((tmp_path / "pages.tif",), ("a",))
    for read in (with_own_ranges, lambda one: with_ranges_of(one, {})):
        (said,) = messages(lambda read=read: read(images))
        assert "pages.tif is a TIFF of several pages, of which only the first is used" in said


def png_of_16_bit_color(values: np.ndarray) -> bytes:
    """A PNG file of values (H, W, 3), which Pillow can't write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def tiff_of_16_bit_color(values: np.ndarray) -> bytes:
    """A TIFF file of values (H, W, 3)."""
    height, width, _ = values.shape
    tags = [(256, width), (257, height), (258, 134), (259, 1), (262, 2), (273, 140), (277, 3), (278, height)]
    tags += [(279, values.size * 2), (339, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head.ljust(134, b"\0") + struct.pack("<3H", 16, 16, 16) + values.astype("<u2").tobytes()


@pytest.mark.parametrize("write", [png_of_16_bit_color, tiff_of_16_bit_color])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_color_that_fills_few_of_its_16_bits_is_reported(tmp_path, write, bits):
    values = np.random.default_rng(1).integers(0, 2**bits, (20, 20, 3))
    (tmp_path / "low").write_bytes(write(values))
    (tmp_path / "full").write_bytes(write(values << (16 - bits)))
    low, full = (ImageSet((tmp_path / name,), ("a",)) for name in ("low", "full"))
    for read in (with_own_ranges, lambda one: with_ranges_of(one, {})):
        (said,) = messages(lambda read=read: read(low))
        assert "low is 16-bit color with low values" in said
        assert messages(lambda read=read: read(full)) == []


def test_nearly_uniform_images_are_found_before_training(tmp_path):
    Image.new("RGB", (30, 30), (7, 9, 8)).save(tmp_path / "black.png")
    Image.new("RGB", (30, 30), (200, 9, 8)).save(tmp_path / "red.png")
    Image.fromarray(NOISE.astype(np.uint8)).save(tmp_path / "noise.png")
    images = ImageSet(tuple(tmp_path / name for name in ("black.png", "red.png", "noise.png")), ("a", "b", "c"))
    (said,) = messages(lambda: readable_images(images))
    assert "black.png is nearly uniform" in said
    assert check_set(images).uniform == (0,)


def test_one_small_object_is_not_uniform():
    image = Image.new("RGB", (500, 500), "white")
    image.putpixel((123, 321), (0, 0, 0))
    assert not is_nearly_uniform(image)
    assert is_nearly_uniform(Image.new("RGB", (500, 1), "white"))
