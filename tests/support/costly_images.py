"""Image files that are small and cost much to decode."""

from __future__ import annotations

import struct
import zlib


def jpeg_of_scans(width: int, height: int, n_scans: int) -> bytes:
    """A gray progressive JPEG whose pixels come once, followed by scans that add nothing."""

    def marker(kind: int, payload: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, kind, len(payload) + 2) + payload

    n_blocks = -(-width // 8) * -(-height // 8)
    # A zero bit for each block: no difference of the mean, and no further coefficients.
    data = bytes(n_blocks // 8) + bytes([0xFF >> n_blocks % 8] if n_blocks % 8 else [])
    tables = b"".join(marker(0xC4, bytes([kind << 4, 1, *[0] * 15, 0])) for kind in (0, 1))
    frame = marker(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")
    means, others = (marker(0xDA, b"\x01\x01\x00" + band + b"\x00") + data for band in (b"\x00\x00", b"\x01\x3f"))
    head = b"\xff\xd8" + marker(0xDB, b"\0" + bytes([16] * 64)) + frame + tables
    return head + means + (n_scans - 1) * others + b"\xff\xd9"


def fits(width: int, height: int) -> bytes:
    """A FITS file, which Pillow opens by its first bytes."""
    cards = {"SIMPLE": "T", "BITPIX": 8, "NAXIS": 2, "NAXIS1": width, "NAXIS2": height}
    head = b"".join(f"{name:<8}= {value:>20}".encode().ljust(80) for name, value in cards.items()) + b"END".ljust(80)
    return head.ljust(2880) + bytes(width * height)


def qoi(width: int, height: int) -> bytes:
    """A QOI file of one colour, which Pillow decodes in Python."""
    return b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + b"\xfd" * (width * height // 62 + 2)


def plain_ppm(width: int, height: int) -> bytes:
    """A PPM whose numbers are text."""
    return f"P3 {width} {height} 255\n".encode() + b"1 " * (width * height * 3)


def run_length_bmp(width: int, height: int) -> bytes:
    """A BMP of 4 bits a pixel, packed by run lengths."""
    row = b"\xff\x11" * (width // 255) + bytes([width % 255, 0x11]) + b"\0\0"
    data = row * height + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 4, 2, len(data), 0, 0, 16, 0) + bytes(64)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data


def png_of_zeros(width: int, height: int) -> bytes:
    """A black gray PNG of any size in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
