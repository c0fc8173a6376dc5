"""What is fuzzed: readers of files and settings that a user may have from anywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import seeds
from mutate import Mutator, damage_bytes, damage_json, damage_safetensors, damage_text

if TYPE_CHECKING:
    from sotglp import SOTGLP

# A target imports what it reads with when it is prepared: with coverage, all of sotglp takes a minute.

Reader = Callable[[bytes], bool]
"""Reads an input; False where it is refused by a return value instead of an error."""


@dataclass(frozen=True)
class Target:
    """A reader with whole inputs to start from.

    Attributes
    ----------
    prepare : callable
        Makes, in an empty folder of its own, the inputs to start from and the reader.
    mutate : callable
        The damage that suits this kind of input.
    """

    prepare: Callable[[Path], tuple[list[bytes], Reader]]
    mutate: Mutator


def _in_file(path: Path, read: Callable[[Path], object]) -> Reader:
    def run(content: bytes) -> bool:
        path.write_bytes(content)
        read(path)
        return True

    return run


def _images(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.images.decode import open_image

    return seeds.images(), lambda content: open_image(content).mode == "RGB"


def _csv(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.images.manifest import read_manifest

    seeds.put_manifest_images(folder)
    return seeds.csv_manifests(), _in_file(folder / "list.csv", read_manifest)


def _parquet(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.images.manifest import read_manifest

    seeds.put_manifest_images(folder)
    return seeds.parquet_manifests(), _in_file(folder / "list.parquet", read_manifest)


def _split_file(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.datasets.split_file import read_split_file

    seeds.put_manifest_images(folder)
    return seeds.split_files(), _in_file(folder / "split.json", lambda path: read_split_file(path, folder))


def _preset(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.settings import PRESETS, load_preset

    return seeds.yaml_files(PRESETS), _in_file(folder / "mine.yaml", lambda path: load_preset(str(path)))


def _suite(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.benchmark.suite import SUITES, load_suite

    return seeds.yaml_files(SUITES), _in_file(folder / "mine.yaml", lambda path: load_suite(str(path)))


def _set(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.cli.fit import _settings

    def run(content: bytes) -> bool:
        _settings("sot-glp", "folder", {}, [content.decode("utf-8", "surrogateescape")])
        return True

    return seeds.set_values(), run


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

    return [path.read_bytes()], _in_file(path, read)


def write_exported(path: Path) -> None:
    """Export a small model."""
    from sotglp.export.onnx_file import export_model

    export_model(path, _model())


def _exported(folder: Path) -> tuple[list[bytes], Reader]:
    from sotglp.runtime import PortableModel

    # In a process of its own: torch can't trace code that coverage has been put into.
    script = (
        "import sys; from pathlib import Path; from targets import write_exported; write_exported(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str((folder / "m.onnx").resolve())]
    subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True)
    return [(folder / "m.onnx").read_bytes()], lambda content: bool(PortableModel.from_bytes(content, "m.onnx").classes)


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
    read = _in_file(checkpoint.path, lambda _: checkpoint.read(model, optimizer, scaler))
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


TARGETS = {
    "image": Target(_images, damage_bytes),
    "csv": Target(_csv, damage_bytes),
    "parquet": Target(_parquet, damage_bytes),
    "model-file": Target(_model_file, damage_safetensors),
    "exported": Target(_exported, damage_bytes),
    "checkpoint": Target(_checkpoint, damage_safetensors),
    "cache-entry": Target(_cache_entry, damage_safetensors),
    "preset": Target(_preset, damage_text),
    "suite": Target(_suite, damage_text),
    "set": Target(_set, damage_text),
    "split-file": Target(_split_file, damage_json),
}
"""Every target by its name."""
