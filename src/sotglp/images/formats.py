"""Formats of image files: which ones are read, by suffix or by content, and why others are not."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"}
)
"""Suffixes of image files, in lower case."""

HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Suffixes of image files that need pillow-heif, in lower case."""

HEIC_ADVICE = "install sotglp[heic]"

HEAD_BYTES = 64
"""Bytes of a file that show its format."""

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
# Pillow passes drawings to an interpreter (Ghostscript), which untrusted files must not reach.
_DRAWINGS = ((b"%!PS", "EPS"), (b"\xc5\xd0\xd3\xc6", "EPS"), (b"\xd7\xcd\xc6\x9a", "WMF"))
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
# Copies and parts of files that programs leave behind. Read by content, they would be images twice or truncated.
_LEFTOVERS = frozenset({".bak", ".backup", ".crdownload", ".download", ".old", ".orig", ".part", ".swp", ".tmp"})
_KNOWN_OTHERS = (
    (frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg"}), "a video; save its frames as PNG or JPEG"),
    (frozenset({".pdf", ".svg", ".eps", ".ai", ".ps", ".wmf", ".emf"}), "a document or drawing; save it as PNG"),
    (
        frozenset({".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".raw"}),
        "a camera's raw file; export it as TIFF or JPEG",
    ),
    (frozenset({".dcm", ".dicom", ".nii", ".npy", ".npz", ".mat", ".h5"}), "an array; save it as PNG or TIFF"),
    (frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}), "an archive; unpack it"),
    (frozenset({".jxl"}), "a JPEG XL image; save it as PNG or JPEG"),
    (frozenset({".psd", ".xcf", ".kra"}), "an editor's document; save it as PNG"),
)


def reads_heic() -> bool:
    """Whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def format_of(head: bytes) -> str | None:
    """Return the format that a file's first bytes show, such as "JPEG" or "HEIC"; None if they show no format."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[6:10] == bytes(4) and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIC" if brands & _HEIC_BRANDS else None
    return None


def may_be_deep(head: bytes) -> bool:
    """Whether a file may hold gray of more than 8 bits, or several pages, by its first bytes."""
    found = format_of(head)
    if found == "PNG":
        return head[24:25] == b"\x10"
    return found == "TIFF" or head[:2] in (b"P2", b"P5", b"Pf")


def is_image_file(path: Path) -> bool:
    """Whether a file is read as an image: by its suffix, or by its content if the suffix is not one of images."""
    suffix = ending(path.name)
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix in HEIC_SUFFIXES:
        return reads_heic()
    if suffix in _LEFTOVERS or suffix.endswith("~") or not os.path.isfile(path):
        return False
    found = format_of(head_of(path))
    return found is not None and (found != "HEIC" or reads_heic())


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file, which tell its format; none if it can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def ending(name: str) -> str:
    """Return the suffix of a file's name in lower case, with its dot; empty if there is none."""
    return os.path.splitext(name)[1].lower()


def unsupported_reason(head: bytes, name: str) -> str:
    """Explain why a file that Pillow can't identify isn't read, as the end of a sentence."""
    suffix = ending(name)
    for signature, kind in _DRAWINGS:
        if head.startswith(signature):
            return f"it is a drawing ({kind}); save it as PNG or JPEG"
    if format_of(head) == "HEIC" or (suffix in HEIC_SUFFIXES and format_of(head) is None):
        if not reads_heic():
            return f"it is a HEIC image, which requires pillow-heif; {HEIC_ADVICE}, or save it as JPEG"
        return "it is a HEIC image that is truncated or damaged; replace it or leave it out"
    if format_of(head) is None:
        for suffixes, what in _KNOWN_OTHERS:
            if suffix in suffixes:
                return f"it is probably {what}"
    return "it isn't a complete image in a format that is supported; replace it or leave it out"
