"""Whole files of every kind, small, that the damage starts from."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, features

MANIFEST_IMAGES = ("a.png", "b.png")
"""Files that manifests and split files list; whoever reads them puts them in place."""


def images() -> list[bytes]:
    """Pictures in the formats that photos come in, as Pillow writes them."""
    return [_encoded(*saved) for saved in _pictures()]


def _pictures() -> Iterator[tuple[Image.Image, str, dict[str, Any]]]:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    full = Image.fromarray(pixels)
    colour, gray, palette = full.convert("RGB"), full.convert("L"), full.convert("RGB").quantize(16)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    text = PngImagePlugin.PngInfo()
    text.add_text("about", "x" * 200, zip=True)
    for options in ({}, {"progressive": True}, {"exif": exif}):
        yield colour, "JPEG", options
    yield colour.convert("CMYK"), "JPEG", {}
    yield gray, "JPEG", {}
    for image, options in ((full, {"exif": exif}), (palette, {"transparency": 3}), (gray, {"pnginfo": text})):
        yield image, "PNG", options
    yield Image.fromarray((pixels[..., 0].astype(np.uint16)) * 257), "PNG", {"icc_profile": b"profile" * 30}
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        yield colour, "TIFF", {"compression": compression, "exif": exif}
    yield gray.convert("F"), "TIFF", {}
    frames = {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}
    for kind in ("GIF", "PNG", "TIFF"):
        yield colour, kind, frames
    yield palette, "GIF", {"transparency": 2}
    yield colour, "BMP", {}
    yield palette, "BMP", {}
    yield colour, "PPM", {}
    if features.check("webp"):
        for options in ({}, {"lossless": True, "exif": exif}, frames):
            yield full, "WEBP", options
    if features.check("jpg_2000"):
        yield colour, "JPEG2000", {}
        yield gray, "JPEG2000", {"irreversible": True}
    if features.check("avif"):
        yield colour, "AVIF", {"exif": exif}


def _encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def csv_manifests() -> list[bytes]:
    """Tables that list :data:`MANIFEST_IMAGES`."""
    return [
        b"path,label\na.png,cat\nb.png,dog\n",
        b'\xef\xbb\xbfsplit,label,path\r\n1,"say ""hi"", cat",a.png\r\n2,"two\nlines","b.png"\r\n',
        b"path\na.png\n\nb.png\n",
    ]


def parquet_manifests() -> list[bytes]:
    """The same as Parquet, in several types and compressions."""
    import pyarrow
    import pyarrow.parquet

    paths = list(MANIFEST_IMAGES)
    tables = [
        pyarrow.table({"path": paths, "label": ["cat", "dog"]}),
        pyarrow.table({"path": paths, "label": pyarrow.array(["cat", "dog"]).dictionary_encode(), "n": [1, 2]}),
        pyarrow.table({"label": [1, 2], "path": pyarrow.array(paths, pyarrow.large_string())}),
    ]
    contents = []
    for table in tables:
        for compression in ("none", "snappy", "gzip", "zstd"):
            sink = pyarrow.BufferOutputStream()
            pyarrow.parquet.write_table(table, sink, compression=compression)
            contents.append(sink.getvalue().to_pybytes())
    return contents


def split_files() -> list[bytes]:
    """JSON of CoOp's kind that lists :data:`MANIFEST_IMAGES`."""
    part = [["a.png", 0, "cat"], ["b.png", 1, "blue_sea"]]
    return [json.dumps({"train": part, "val": part[:1], "test": part}).encode()]


def yaml_files(folder: str) -> list[bytes]:
    """What the package has in a folder of YAML files."""
    found = [
        entry.read_bytes() for entry in (resources.files("sotglp") / folder).iterdir() if entry.name[-5:] == ".yaml"
    ]
    return sorted(found)


def set_values() -> list[bytes]:
    """What may stand behind --set."""
    return [b"top_k=20", b"template='a photo of {}'", b"augment=false", b"learning_rate=1e-3", b"relaxation=null"]


def put_manifest_images(folder: Path) -> None:
    """Make the files that manifests list; they are never opened."""
    for name in MANIFEST_IMAGES:
        (folder / name).touch()
