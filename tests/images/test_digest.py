from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from sotglp.errors import UnreadableImageError
from sotglp.images.digest import content_digest


def test_a_file_is_identified_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jpg", tmp_path / "b.png"
    first.write_bytes(b"picture")
    second.write_bytes(b"picture")
    digest = content_digest(first)
    assert digest == content_digest(second) == hashlib.sha256(b"picture").hexdigest()
    times = first.stat()
    first.write_bytes(b"Picture")
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert content_digest(first) != digest
    with pytest.raises(UnreadableImageError, match=r"can't read .*c\.jpg: opening it failed \(No such file"):
        content_digest(tmp_path / "c.jpg")


def test_a_picture_is_identified_by_what_it_shows() -> None:
    def painted(mode: str = "RGB", size: tuple[int, int] = (4, 6)) -> Image.Image:
        return Image.frombytes(mode, size, bytes(range(24 * len(mode))))

    plain = painted()
    assert content_digest(plain) == content_digest(plain.copy())
    palette = Image.frombytes("P", (4, 6), bytes(range(24)))
    palette.putpalette([value for index in range(256) for value in (index, 0, 0)])
    other_palette = palette.copy()
    other_palette.putpalette([value for index in range(256) for value in (0, index, 0)])
    see_through = palette.copy()
    see_through.info["transparency"] = 3
    turned = plain.copy()
    turned.getexif()[0x0112] = 3
    changed = plain.copy()
    changed.putpixel((1, 1), (0, 0, 0))
    pictures = [
        plain,
        painted(size=(6, 4)),
        painted(size=(24, 1)),
        painted("L"),
        palette,
        other_palette,
        see_through,
        turned,
        changed,
    ]
    assert len({content_digest(picture) for picture in pictures}) == len(pictures)


def test_a_tensor_is_identified_by_type_shape_and_values() -> None:
    plain = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    tensors = [plain, plain.view(3, 2, 8), plain.view(torch.int8), plain.float(), plain.flip(0), plain.transpose(1, 2)]
    assert len({content_digest(tensor) for tensor in tensors}) == len(tensors)
    assert content_digest(plain) == content_digest(torch.stack([plain * 0, plain])[1])
    assert content_digest(plain.mT) == content_digest(plain.mT.contiguous())
