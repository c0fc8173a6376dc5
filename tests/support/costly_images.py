"""Image files that are small and cost much to decode."""

from __future__ import annotations

import struct
import zlib

MEBIBYTE = 2**20


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


def png(width: int, height: int, *chunks: tuple[bytes, bytes], colour: int = 2) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*one) for one in chunks) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame + b";"


def tiff(width: int, height: int) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 1}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + fields + bytes(4)


def jp2(width: int, height: int) -> bytes:
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, width, height, 0, 0, 1) + bytes([7, 1, 1])
    style = b"\xff\x52" + struct.pack(">HBBHB", 12, 0, 0, 1, 0) + bytes([0, 4, 4, 0, 1])
    quantised = b"\xff\x5c" + struct.pack(">HBB", 4, 0x40, 0x40)
    part = b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 0, 0, 1) + b"\xff\x93"
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + style + quantised + part + b"\xff\xd9"


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def zipped_zeros(size: int) -> bytes:
    """Packed zero bytes, made a mebibyte at a time."""
    packer = zlib.compressobj()
    whole, rest = divmod(size, MEBIBYTE)
    parts = [packer.compress(bytes(MEBIBYTE)) for _ in range(whole)]
    return b"".join([*parts, packer.compress(bytes(rest)), packer.flush()])


def png_of_zeros(width: int, height: int) -> bytes:
    """A black gray PNG of any size in a few kilobytes."""
    return png(width, height, (b"IDAT", zipped_zeros((width + 1) * height)), colour=0)
