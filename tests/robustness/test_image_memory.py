"""Bombs and large images: memory for the image and no more."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from sotglp.errors import UnreadableImageError
from sotglp.images.decode import open_image
from support.costly_images import MEBIBYTE, bmp, gif, jp2, png, tiff, zipped_zeros


def peak(statement: str, *arguments: object) -> int:
    """Bytes that a statement about ``open_image`` adds to the memory of a fresh process, at most."""
    script = (
        "import resource, sys\n"
        "from sotglp.images.decode import UnreadableImageError, open_image\n"
        "from PIL import Image; Image.init()\n"
        "def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"before = used()\n{statement}\nprint(used() - before)"
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


BOMBS = {
    "png": png(60_000, 60_000, (b"IDAT", zipped_zeros(MEBIBYTE))),
    "gif": gif(65_535, 65_535),
    "tiff": tiff(100_000, 100_000),
    "jp2": jp2(100_000, 100_000),
    "bmp": bmp(60_000, 60_000),
    "whole png of zeros": png(14_000, 14_000, (b"IDAT", zipped_zeros(14_000 * 42_001))),
}


def test_decompression_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    for name, content in BOMBS.items():
        assert len(content) < MEBIBYTE
        with pytest.raises(UnreadableImageError, match="than the limit of 178956970"):
            open_image(content)
        (tmp_path / name).write_bytes(content)
    refuse_all = (
        "for path in sys.argv[1:]:\n"
        "    try: open_image(path)\n"
        "    except UnreadableImageError: continue\n"
        "    raise SystemExit(path)"
    )
    assert peak(refuse_all, *(tmp_path / name for name in BOMBS)) < 64 * MEBIBYTE


@pytest.mark.parametrize(
    ("kind", "chunk"),
    [("text", b"zTXt"), ("profile", b"iCCP"), ("international", b"iTXt")],
)
def test_bombs_beside_the_pixels_of_a_png_stay_packed(tmp_path: Path, kind: str, chunk: bytes) -> None:
    head = b"about\0\x01\0\0\0" if chunk == b"iTXt" else b"about\0\0"
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 2, (chunk, head + zipped_zeros(120 * MEBIBYTE)), (b"IDAT", zlib.compress(bytes(14)))))
    read = "try: open_image(sys.argv[1])\nexcept UnreadableImageError: pass"
    assert peak(read, path) < 64 * MEBIBYTE


@pytest.mark.parametrize(
    ("mode", "name", "bytes_per_pixel"),
    [
        # Pillow holds a pixel in 4 bytes (gray in 1), and so does the result.
        ("RGB", "a.png", 8),
        ("RGBA", "a.png", 8),
        ("LA", "a.png", 8),
        ("L", "a.png", 5),
        ("I;16", "a.png", 6),
        ("F", "a.tif", 8),
        ("RGB", "a.jpg", 8),
    ],
)
def test_a_large_image_takes_memory_for_itself_and_its_copy(
    tmp_path: Path, mode: str, name: str, bytes_per_pixel: int
) -> None:
    side = 5000
    path = tmp_path / name
    Image.new(mode, (side, side)).save(path, **({"compress_level": 1} if name == "a.png" else {}))
    # Three bands of 2**22 pixels and what the decoder needs lie between.
    assert peak("open_image(sys.argv[1])", path) < side**2 * bytes_per_pixel + 160 * MEBIBYTE


def test_of_many_frames_the_first_is_read_alone(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (700, 700), (n, 2 * n, 9)) for n in range(60)]
    for name in ("a.gif", "a.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert open_image(tmp_path / name).size == (700, 700)
        assert peak("open_image(sys.argv[1])", tmp_path / name) < 64 * MEBIBYTE
