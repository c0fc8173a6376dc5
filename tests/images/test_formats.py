import io

import pytest
from PIL import Image

from sotglp.errors import UnreadableImageError
from sotglp.images import decode, formats
from sotglp.images.formats import format_of, is_image_file

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "JPEG 2000", "AVIF"])
def test_formats_are_recognised_by_content(tmp_path, kind):
    content = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(content, kind.replace(" ", "").upper())
    assert format_of(content.getvalue()[:64]) == kind
    (tmp_path / "picture").write_bytes(content.getvalue())
    assert is_image_file(tmp_path / "picture")
    (tmp_path / "picture.tmp").write_bytes(content.getvalue())
    assert not is_image_file(tmp_path / "picture.tmp")


@pytest.mark.parametrize("head", [b"", b"BM", b"BMW are cars, and no bitmap", b"\0\0\0\x18ftypisom", HEIC[:8]])
def test_other_content_has_no_format(head):
    assert format_of(head) is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("IMG_1.HEIC", HEIC, r"HEIC image, .*sotglp\[heic\]"),
        ("IMG_1.jpg", HEIC, r"HEIC image, .*sotglp\[heic\]"),
        ("a.mp4", b"\0\0\0\x18ftypisom" + bytes(99), "video"),
        ("a.pdf", b"%PDF-1.7", "document"),
        ("a.svg", b"<svg/>", "drawing"),
        ("a.jxl", b"\xff\x0a" + bytes(99), "JPEG XL"),
        ("a.nef", b"nothing known", "raw file"),
    ],
)
def test_an_unsupported_file_says_why(tmp_path, monkeypatch, name, content, words):
    monkeypatch.setattr(formats, "reads_heic", lambda: False)
    monkeypatch.setattr(decode, "reads_heic", lambda: False)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=words):
        decode.open_image(tmp_path / name)


def test_heic_is_read_with_pillow_heif(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "IMG_1.HEIC"
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 40))).save(path)
    assert is_image_file(path)
    image = decode.open_image(path)
    assert image.size == (64, 48)
    assert abs(image.getpixel((10, 10))[0] - 200) < 8
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableImageError, match="damaged"):
        decode.open_image(path)
