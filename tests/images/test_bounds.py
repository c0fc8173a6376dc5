"""Small files that would cost minutes or gigabytes are refused before they are decoded."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sotglp.errors import UnreadableImageError
from sotglp.images.bounds import MAX_SCANS, count_scans
from sotglp.images.decode import open_image
from support.costly_images import fits, jpeg_of_scans, plain_ppm, qoi, run_length_bmp


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_the_scans_of_ordinary_files_are_counted() -> None:
    assert count_scans(jpeg()) == 1
    assert 5 <= count_scans(jpeg(progressive=True)) <= 20
    thumbnail = b"Exif\0\0" + 200 * b"\xff\xda"
    assert count_scans(jpeg(exif=thumbnail)) == 1
    # A film behind the picture, as some phones append it, has such bytes by chance.
    assert count_scans(jpeg() + 200 * b"\xff\xda\0\0") == 1
    assert count_scans(b"\xff\xd8") == 0


def test_a_jpeg_of_too_many_scans_is_refused() -> None:
    assert open_image(jpeg_of_scans(60, 20, 20)).size == (60, 20)
    with pytest.raises(UnreadableImageError, match=f"more than {MAX_SCANS} scans"):
        open_image(jpeg_of_scans(64, 64, 30_000))


@pytest.mark.parametrize("content", [fits(8, 8), qoi(8, 8)], ids=["fits", "qoi"])
def test_formats_that_the_documentation_does_not_name_are_refused(content: bytes) -> None:
    assert Image.open(io.BytesIO(content)).size == (8, 8)
    with pytest.raises(UnreadableImageError, match="a format that is supported"):
        open_image(content)


@pytest.mark.parametrize("make", [plain_ppm, run_length_bmp])
def test_images_that_pillow_decodes_in_python_have_few_pixels(make: object) -> None:
    assert callable(make)
    assert open_image(make(16, 9)).size == (16, 9)
    with pytest.raises(UnreadableImageError, match="allowed for this variant"):
        open_image(make(3000, 3000)[:1000])


def test_a_binary_ppm_of_an_odd_depth_counts_as_slow() -> None:
    with pytest.raises(UnreadableImageError, match="allowed for this variant"):
        open_image(b"P6 3000 3000 254\n" + bytes(100))
    assert open_image(b"P6 2 1 255\n" + struct.pack("6B", *range(6))).size == (2, 1)


def animation(kind: str) -> bytes:
    """10,000 frames of one pixel."""
    frames = [Image.new("RGB", (1, 1), (index % 256, index // 256, 0)) for index in range(10_000)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_many_frames_only_the_first_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = animation(kind)
    monkeypatch.setattr(Image.Image, "seek", lambda *_: pytest.fail("a frame too many"))
    assert open_image(content).getpixel((0, 0)) == (0, 0, 0)


def with_metadata(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "white").save(buffer, kind, **options)
    return buffer.getvalue()


XMP = b"<x:xmpmeta>" + b'<a tiff:Orientation="' * 100_000 + b"</x:xmpmeta>"


def zipped_xmp(n_chunks: int, length: int) -> PngInfo:
    info = PngInfo()
    for _ in range(n_chunks):
        info.add_itxt("XML:com.adobe.xmp", XMP.decode()[:length], zip=True)
    return info


@pytest.mark.parametrize(
    "content",
    [
        with_metadata("JPEG", icc_profile=XMP),
        with_metadata("TIFF", tiffinfo={700: XMP}),
        with_metadata("WEBP", xmp=XMP, lossless=True),
        with_metadata("PNG", pnginfo=zipped_xmp(50, 1_000_000)),
    ],
    ids=["color profile", "TIFF", "WebP", "PNG"],
)
def test_large_metadata_does_no_harm(content: bytes) -> None:
    assert open_image(content).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    "content",
    [with_metadata("PNG", icc_profile=XMP), with_metadata("PNG", pnginfo=zipped_xmp(1, 2_000_000))],
    ids=["color profile", "XMP"],
)
def test_metadata_that_is_unpacked_is_bounded(content: bytes) -> None:
    assert len(content) < 50_000
    with pytest.raises(UnreadableImageError, match="save it without metadata"):
        open_image(content)
