import contextlib
import io
import os
import pickle
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images import decode as images
from sotglp.images.decode import open_image
from sotglp.images.formats import IMAGE_SUFFIXES


def noise(height=24, width=31, channels=3, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values[..., 0] if channels == 1 else values


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source):
    image = open_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def gray(values):
    return np.repeat(np.asarray(values, dtype=np.uint8)[..., None], 3, axis=2)


def over_white(colour, alpha):
    return colour * (alpha / 255.0) + 255.0 * (1 - alpha / 255.0)


def png_header(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "image"])
def test_a_source_of_any_kind_gives_the_same_pixels(tmp_path, kind):
    path = tmp_path / "a.png"
    Image.fromarray(noise()).save(path)
    source = {"path": path, "text": str(path), "bytes": path.read_bytes(), "image": Image.open(path)}[kind]
    np.testing.assert_array_equal(pixels(source), noise())


def test_an_image_in_memory_stays_as_it_is():
    image = Image.fromarray(noise())
    result = open_image(image)
    result.paste((1, 2, 3), (0, 0, 5, 5))
    np.testing.assert_array_equal(np.asarray(image), noise())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(orientation, kind):
    stored = Image.fromarray(noise())
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(stored, kind, exif=exif, **options)
    decoded = Image.fromarray(pixels(encoded(stored, kind, **options)))
    decoded.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(decoded))
    result = open_image(content)
    np.testing.assert_array_equal(np.asarray(result), expected)
    np.testing.assert_array_equal(pixels(result), expected)
    np.testing.assert_array_equal(pixels(Image.open(io.BytesIO(content))), expected)


def test_damaged_exif_does_not_spoil_the_picture():
    stored = Image.fromarray(noise())
    content = encoded(stored, "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff broken")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(pixels(content), noise())


def test_gray_and_bilevel():
    values = noise(channels=1)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(values))), gray(values))
    bits = Image.fromarray(values > 127)
    assert bits.mode == "1"
    np.testing.assert_array_equal(pixels(encoded(bits)), gray((values > 127) * 255))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "La", "RGBa"])
def test_transparent_parts_show_white(mode):
    channels = 1 if mode.upper() == "LA" else 3
    colour, alpha = noise(channels=channels), noise(channels=1, seed=1)
    alpha[0], alpha[1] = 0, 255
    together = np.dstack([colour, alpha])
    image = Image.fromarray(together, mode.upper())
    expected = over_white(together[..., :-1].astype(float), alpha[..., None])
    # Premultiplied modes round colours once more.
    tolerance = 1 if mode.isupper() else 2
    result = pixels(image.convert(mode)).astype(float)
    assert np.abs(result - expected).max() <= tolerance
    assert (result[0] == 255).all()
    np.testing.assert_array_equal(result[1], np.broadcast_to(together[1, :, :-1], result[1].shape))


def test_palette_with_and_without_transparency():
    palette = [10, 20, 30, 200, 100, 50, 0, 0, 255, 90, 90, 90]
    index = np.random.default_rng(0).integers(0, 4, (9, 11), dtype=np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(palette)
    colours = np.array(palette, dtype=np.uint8).reshape(4, 3)
    np.testing.assert_array_equal(pixels(encoded(image)), colours[index])

    keyed = colours.copy()
    keyed[2] = 255
    np.testing.assert_array_equal(pixels(encoded(image, transparency=2)), keyed[index])
    np.testing.assert_array_equal(pixels(encoded(image, "GIF", transparency=2)), keyed[index])

    alpha = np.array([255, 0, 128, 255])
    blended = over_white(colours.astype(float), alpha[:, None])
    result = pixels(encoded(image, transparency=bytes(alpha.tolist())))
    assert np.abs(result - blended[index]).max() <= 1


def test_a_colour_declared_transparent_shows_white():
    values = noise()
    values[3, 4] = (7, 8, 9)
    expected = values.copy()
    expected[(values == (7, 8, 9)).all(axis=2)] = 255
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(values), transparency=(7, 8, 9))), expected)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_sixteen_bit_gray_keeps_its_high_byte(mode):
    values = np.random.default_rng(0).integers(0, 2**16, (6, 7)).astype(np.uint16)
    values[0, :4] = [0, 255, 256, 65535]
    layout = {"I": "<i4", "I;16B": ">u2"}.get(mode, "<u2")
    image = Image.frombytes(mode, (7, 6), values.astype(layout).tobytes())
    np.testing.assert_array_equal(pixels(image), gray(values // 256))


def test_sixteen_bit_files_and_values_beyond():
    values = np.random.default_rng(0).integers(0, 2**16, (6, 7)).astype(np.uint16)
    for content in (encoded(Image.fromarray(values)), encoded(Image.fromarray(values), "TIFF")):
        np.testing.assert_array_equal(pixels(content), gray(values // 256))
    np.testing.assert_array_equal(pixels(b"P5 7 6 65535\n" + values.astype(">u2").tobytes()), gray(values // 256))
    image = Image.fromarray(np.array([[-5, 2**20]], dtype=np.int32))
    np.testing.assert_array_equal(pixels(image), gray([[0, 255]]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.0, 0.5, 1.0]], [[0, 128, 255]]),
        ([[0.0, 100.4, 300.0]], [[0, 100, 255]]),
        ([[-3.0, np.nan, 1.0]], [[0, 0, 255]]),
        ([[np.inf, -np.inf, 17.0]], [[255, 0, 17]]),
    ],
)
def test_float_gray(values, expected):
    image = Image.fromarray(np.array(values, dtype=np.float32))
    assert image.mode == "F"
    np.testing.assert_array_equal(pixels(image), gray(expected))


def test_cmyk_from_an_adobe_jpeg_and_ycbcr():
    # Pillow writes CMYK JPEGs inverted and marked, as Adobe does.
    content = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in content
    assert np.abs(pixels(content).astype(int) - [255, 0, 0]).max() <= 2
    image = Image.new("RGB", (4, 4), (200, 60, 30)).convert("YCbCr")
    assert np.abs(pixels(image).astype(int) - (200, 60, 30)).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several(kind):
    frames = [Image.new("RGB", (12, 10), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
    np.testing.assert_array_equal(pixels(content), np.full((10, 12, 3), (255, 0, 0)))


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_pillow_knows_every_suffix(suffix):
    assert suffix == suffix.lower()
    assert suffix in Image.registered_extensions()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "TIFF tiff_lzw", "PPM"])
@settings(max_examples=15, deadline=None)
@given(part=st.floats(0.0, 0.97))
def test_a_truncated_image_is_refused(kind, part):
    kind, _, compression = kind.partition(" ")
    content = encoded(Image.fromarray(noise()), kind, **({"compression": compression} if compression else {}))
    open_image(content)
    with pytest.raises(UnreadableImageError):
        open_image(content[: int(part * len(content))])


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]), data=st.data())
def test_damaged_bytes_are_read_or_refused_but_never_raise_anything_else(kind, data):
    content = bytearray(encoded(Image.fromarray(noise()), kind))
    places = data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8))
    for place in places:
        content[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnreadableImageError):
        assert open_image(bytes(content)).mode == "RGB"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "the file does not exist"),
        ("folder", "it is a folder"),
        (b"", "it is empty"),
        (b"This is no image.", "isn't a complete image in a format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", r"it is a drawing \(EPS\)"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, content, words):
    path = tmp_path / "a.jpg"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=words) as caught:
        open_image(path)
    assert caught.value.source == str(path)
    message = str(caught.value)
    assert message.startswith(f"can't read {path}: ")
    assert "\n" not in message
    assert isinstance(caught.value, SotglpError)


def test_sources_that_are_not_images(tmp_path):
    loop = tmp_path / "a.png"
    loop.symlink_to(loop)
    closed = Image.open(io.BytesIO(encoded(Image.fromarray(noise()))))
    closed.close()
    for source, words in (
        (loop, r"opening it failed \(.*symbolic links\); check the path"),
        ("a\0.png", "check the path"),
        (Image.new("RGB", (0, 5)), "0 x 5, so it has no pixels"),
        (closed, "can't read an image in memory: "),
        (noise(), "an object of type ndarray: give a path"),
    ):
        with pytest.raises(UnreadableImageError, match=words):
            open_image(source)


@pytest.mark.parametrize("pillow_bound", [89_478_485, None])
def test_a_decompression_bomb_is_refused(monkeypatch, pillow_bound):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_bound)
    with pytest.raises(UnreadableImageError, match=r"more .*than the limit of 178956970"):
        open_image(png_header(20_000, 20_000))


def test_our_bound_is_exact(monkeypatch):
    content = encoded(Image.fromarray(noise(10, 12)))
    monkeypatch.setattr(images, "MAX_PIXELS", 120)
    assert open_image(content).size == (12, 10)
    monkeypatch.setattr(images, "MAX_PIXELS", 119)
    with pytest.raises(UnreadableImageError, match="120 pixels, more than the limit of 119"):
        open_image(content)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_no_file_stays_open(tmp_path):
    whole, short = tmp_path / "a.png", tmp_path / "b.jpg"
    Image.fromarray(noise()).save(whole)
    short.write_bytes(encoded(Image.fromarray(noise()), "JPEG")[:300])
    before = sorted(os.listdir("/proc/self/fd"))
    kept = [open_image(whole)]
    with pytest.raises(UnreadableImageError) as caught:
        open_image(short)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert kept[0].size == (31, 24)
    assert caught.value.source == str(short)


def test_an_error_survives_the_way_from_another_process():
    error = pickle.loads(pickle.dumps(UnreadableImageError("a.jpg", "it is empty")))
    assert (error.source, error.reason) == ("a.jpg", "it is empty")
    assert str(error) == "can't read a.jpg: it is empty"


def test_many_threads_refuse_a_truncated_image(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = encoded(Image.fromarray(noise(200, 200)), "JPEG")

    def is_refused(part):
        with contextlib.suppress(UnreadableImageError):
            return not open_image(content[: int(part * len(content))])
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(is_refused, [0.5, 1.0] * 100)) == [True, False] * 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_many_threads_leave_the_filters_of_warnings_as_they_are(monkeypatch):
    content = encoded(Image.fromarray(noise(10, 12)))
    broken = encoded(Image.fromarray(noise(10, 12)), "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff broken")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        current, before = warnings.filters, list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(open_image, [content, broken] * 200))) == 400
        assert warnings.filters is current
        assert list(warnings.filters) == before
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(io.BytesIO(content))


def test_filters_that_another_thread_replaced_meanwhile_are_left_clean():
    before = list(warnings.filters)
    with images._PILLOW_SETTINGS:
        changed = warnings.catch_warnings()
        changed.__enter__()
    changed.__exit__(None, None, None)
    assert list(warnings.filters) == before


def test_threads_get_the_pixels_they_asked_for():
    contents = [encoded(Image.fromarray(noise(seed=k))) for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(pixels, contents))
    for k in range(len(contents)):
        np.testing.assert_array_equal(results[k], noise(seed=k))


def test_a_strip_that_would_fill_memory_when_it_is_scaled_is_refused():
    assert open_image(encoded(Image.new("L", (2, 2000)))).size == (2, 2000)
    for size in ((1, 1001), (60_000, 2)):
        with pytest.raises(UnreadableImageError, match=f"its size is {size[0]} x {size[1]}, a strip"):
            open_image(encoded(Image.new("L", size)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "La", "CMYK", "YCbCr", "I", "I;16", "I;16B", "F"])
def test_bands_of_a_large_image_are_converted_like_the_whole(monkeypatch, mode):
    values = noise(50, 31, 4)
    if mode in ("I", "I;16", "I;16B"):
        layout = {"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode]
        image = Image.frombytes(mode, (31, 50), (values[..., 0].astype(int) * 257).astype(layout).tobytes())
    elif mode == "F":
        # Only one band of it goes above 1, yet it is for all to count from 0 to 255.
        image = Image.fromarray(np.linspace(0, 2, 31 * 50, dtype=np.float32).reshape(50, 31) * 100)
    else:
        image = Image.fromarray(values, "RGBA").convert({"La": "LA"}.get(mode, mode)).convert(mode)
    if mode in ("L", "P"):
        image.info["transparency"] = 7
    whole = pixels(image)
    monkeypatch.setattr(images, "_BAND_PIXELS", 31 * 7)
    np.testing.assert_array_equal(pixels(image), whole)
