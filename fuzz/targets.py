"""Fuzz targets: readers of files and settings that a user may have from anywhere, with valid inputs to start from."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from input_targets import MANIFEST_IMAGES, Reader, formats, labels, tables
from PIL import Image

if TYPE_CHECKING:
    from sotglp import SOTGLP

Target = Callable[[Path], tuple[list[bytes], Reader]]
"""Returns valid inputs and the reader; both may use an empty folder."""

# A target imports its reader when it is called: with coverage, all of sotglp takes a minute.


def _reader(path: Path, read: Callable[[Path], object]) -> Reader:
    for name in MANIFEST_IMAGES:
        path.with_name(name).touch()

    def run(content: bytes) -> bool:
        path.write_bytes(content)
        read(path)
        return True

    return run


def _images(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.images.decode import open_image

    return list(image_files()), lambda content: open_image(content).mode == "RGB"


def image_files() -> Iterator[bytes]:
    """Yield small images of all formats and modes."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif.update({0x0112: 6, 0x010F: "a camera"})
    frames = {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}
    tiff = [("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
    formats = ("JPEG", "PNG", "TIFF", "GIF", "BMP", "PPM", "WEBP", "JPEG2000", "AVIF")
    options = [(name, how) for name in formats for how in ({}, {"exif": exif})]
    options += [*tiff, ("JPEG", {"progressive": True}), *((name, frames) for name in ("GIF", "PNG", "TIFF", "WEBP"))]
    for mode, (name, how) in itertools.product(("RGB", "L", "P", "RGBA", "CMYK", "F", "I;16"), options):
        file = io.BytesIO()
        try:
            image.convert("L" if mode == "I;16" else mode).convert(mode).save(file, name, **how)
        except (OSError, KeyError, ValueError, TypeError):
            continue  # this format has no such mode or option, or Pillow was built without it
        yield file.getvalue()


def _csv(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.images.columns import Columns
    from sotglp.images.manifest import read_manifest

    seeds = [
        b"path,label\na.png,cat\nb.png,dog\n",
        b'\xef\xbb\xbfnote,label,path\r\n1,"say ""hi"", cat",a.png\r\n2,"two\nlines","b.png"\r\n',
        b"path\na.png\n\nb.png\n",
        b'sep=;\n"Image Path";class;split\na.png;1.0;train\nb.png;2;test\n',
        b"is_valid|file|label\nTrue|a.png|'cat\nFalse|.\\b.png|dog\n",
    ]
    return seeds, _reader(folder / "list.csv", lambda path: read_manifest(path, Columns("all")))


def _parquet(folder: Path) -> tuple[list[bytes], Reader]:
    import pyarrow
    import pyarrow.parquet

    from sotglp.images.manifest import read_manifest

    paths, labels = list(MANIFEST_IMAGES), ["cat", "dog"]
    columns: list[dict[str, Any]] = [
        {"path": paths, "label": labels},
        {"path": paths, "label": pyarrow.array(labels).dictionary_encode(), "n": [1, 2]},
        {"label": [1, 2], "path": pyarrow.array(paths, pyarrow.large_string())},
    ]
    seeds = []
    for table, compression in itertools.product(columns, ("none", "snappy", "gzip", "zstd")):
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table(table), sink, compression=compression)
        seeds.append(sink.getvalue().to_pybytes())
    return seeds, _reader(folder / "list.parquet", read_manifest)


def _split_file(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.datasets.split_file import read_split_file

    part = [["a.png", 0, "cat"], ["b.png", 1, "blue_sea"]]
    seed = json.dumps({"train": part, "val": part[:1], "test": part}).encode()
    return [seed], _reader(folder / "split.json", lambda path: read_split_file(path, folder))


def _yaml_files(folder: str) -> list[bytes]:
    files = (resources.files("sotglp") / folder).iterdir()
    return sorted(file.read_bytes() for file in files if file.name.endswith(".yaml"))


def _preset(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.settings import PRESETS, load_preset

    return _yaml_files(PRESETS), _reader(folder / "mine.yaml", lambda path: load_preset(str(path)))


def _suite(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.benchmark.suite import SUITES, load_suite

    return _yaml_files(SUITES), _reader(folder / "mine.yaml", lambda path: load_suite(str(path)))


def _set(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.cli.fit import settings_of_candidates

    def run(content: bytes) -> bool:
        settings_of_candidates("tiny", "sot-glp", "folder", {}, [content.decode("utf-8", "surrogateescape")])
        return True

    return [b"top_k=20", b"template='a photo of {}'", b"augment=false", b"learning_rate=1e-3", b"relaxation=null"], run


def _model() -> SOTGLP:
    import open_clip
    import torch

    from sotglp import SOTGLP, Backbone

    torch.manual_seed(0)
    clip = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 32},
        text_cfg={"width": 16, "heads": 1, "layers": 1},
    )
    return SOTGLP(Backbone.from_open_clip(clip), ["cat", "blue sea"], top_k=2, n_local_prompts=2)


def _model_file(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.model_file.load import load_model
    from sotglp.model_file.record import read_record
    from sotglp.model_file.save import save_model

    model = _model()
    path = folder / "m.safetensors"
    save_model(path, model)

    def read(path: Path) -> None:
        read_record(path)
        load_model(path, backbone=model.backbone)

    return [path.read_bytes()], _reader(path, read)


def write_exported(path: Path) -> None:
    """Export a small model."""
    from sotglp.export.onnx_file import export_model

    export_model(path, _model())


def _exported(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.runtime import PortableModel

    path = folder / "m.onnx"
    if "atheris" in sys.modules:
        # torch can't trace code that atheris has instrumented.
        code = f"from pathlib import Path; from targets import write_exported; write_exported(Path({str(path)!r}))"
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, capture_output=True)
    else:
        write_exported(path)
    return [path.read_bytes()], lambda content: bool(PortableModel.from_bytes(content, "m.onnx").classes)


def _checkpoint(folder: Path) -> tuple[list[bytes], Reader]:
    import torch

    from sotglp.training.checkpoint import Checkpoint

    model = _model()
    optimizer = torch.optim.SGD(model.learned, lr=0.1, momentum=0.9)
    for parameter in model.learned:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint = Checkpoint(folder / "m.checkpoint", "a run")
    scaler = torch.amp.GradScaler("cpu")
    checkpoint.write(model, optimizer, scaler, [{"epoch": 1, "loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1}])
    read = _reader(checkpoint.path, lambda _: checkpoint.read(model, optimizer, scaler))
    return [checkpoint.path.read_bytes()], read


def _cache_entry(folder: Path) -> tuple[list[bytes], Reader]:
    import torch

    from sotglp.features.cache import FeatureStore

    store = FeatureStore(folder, {"weights": "some"})
    key = store.key("0" * 64, None)
    store.write(key, torch.rand(8), torch.rand(4, 6))
    (path,) = folder.rglob("*.safetensors")

    def run(content: bytes) -> bool:
        path.write_bytes(content)
        return store.read(key) is not None

    return [path.read_bytes()], run


MULTIPART = "multipart/form-data; boundary=frontier"


def _multipart(folder: Path) -> tuple[list[bytes], Reader]:
    from starlette.requests import Request

    from sotglp.web.limits import Limits, Quota
    from sotglp.web.uploads import received

    limits = Limits(max_image_bytes=10_000, max_images=3, max_request_bytes=50_000, max_received_bytes=60_000)

    async def receive_form(content: bytes) -> bool:
        # In pieces, whose borders may lie anywhere in the body.
        pieces = [content[start : start + 700] for start in range(0, len(content) or 1, 700)]

        async def receive() -> dict[str, Any]:
            piece = pieces.pop(0) if pieces else b""
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        request = Request({"type": "http", "headers": [(b"content-type", MULTIPART.encode())]}, receive)
        quota = Quota(limits.max_received_bytes, "uploads")
        try:
            async with received(request, limits, quota, "images") as form:
                return all(len(upload.read()) <= limits.max_image_bytes for upload in form.uploads)
        finally:
            assert quota.n_taken == 0

    def part(disposition: str, content: bytes) -> bytes:
        return (
            b"--frontier\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"
        )

    images = [part(f'name="images"; filename="{index}.png"', bytes(2000 * index)) for index in range(3)]
    encoded = part("name=images; filename=k.png; filename*=UTF-8''%D0%BA.png\r\nContent-Type: image/png", b"--frontie")
    texts = part('name="name"', "wren \u00fc".encode())
    seeds = [images[1], b"".join(images), texts + images[2], encoded + texts]
    return [seed + b"--frontier--\r\n" for seed in seeds], lambda content: asyncio.run(receive_form(content))


TARGETS: dict[str, Target] = {
    "image": _images,
    "csv": _csv,
    "parquet": _parquet,
    "table": tables,
    "labels": labels,
    "format": formats,
    "model-file": _model_file,
    "exported": _exported,
    "checkpoint": _checkpoint,
    "cache-entry": _cache_entry,
    "preset": _preset,
    "suite": _suite,
    "set": _set,
    "split-file": _split_file,
    "multipart": _multipart,
}
