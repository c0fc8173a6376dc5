"""The demo on painted pictures from end to end: pictures, methods, results, a figure and a model."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from sotglp.backbone import Backbone
from sotglp.backbone.tiny import NAME
from sotglp.console.progress import note
from sotglp.demo.comparison import SETTINGS as SETTINGS
from sotglp.demo.comparison import compare_methods, draw_shots_of_task, draw_test_sets
from sotglp.demo.folder import MODEL, PHOTOS, check_folder
from sotglp.demo.gallery import draw_gallery
from sotglp.errors import SotglpError
from sotglp.files.atomic import os_reason, place_file, write_file
from sotglp.images.image_set import ImageSet
from sotglp.model_file.save import save_model

PICTURE = "plan.png"
FILES = (MODEL, PICTURE)
"""What the demo writes besides the images and results."""

SHOTS = 16
TEST_PER_CLASS = 30
N_OTHERS = 300
SHOWN = 5

TEST_SEED = 1_000_000
"""Far above all training seeds, so that pictures differ."""


def run_painted(out: Path, *, seed: int = 1, force: bool = False, show_progress: bool = True) -> dict[str, Any]:
    """Compare methods on painted pictures; write ``photos``, ``model.safetensors`` and ``plan.png`` to a folder.

    Return results of ``methods`` by name, ``shots``, ``seed`` and ``seconds``.
    """
    started = time.perf_counter()
    check_folder(out, FILES, force=force)
    backbone = Backbone.load(NAME)
    train = draw_shots_of_task(SHOTS, seed)
    sets = draw_test_sets(TEST_PER_CLASS, N_OTHERS, TEST_SEED)
    settings = SETTINGS.model_copy(update={"seed": seed, "shots": SHOTS})
    results, model = compare_methods(backbone, train, sets, settings, show_progress=show_progress)
    note(f"writing to {out}", show=show_progress)
    out.mkdir(parents=True, exist_ok=True)
    save_model(out / MODEL, model, training=settings, force=force)
    write_file(out / PICTURE, lambda beside: draw_gallery(model, sets, list(range(SHOWN)), beside), force=force)
    save_photos(out / PHOTOS / "train", train)
    save_photos(out / PHOTOS / "test", sets.images)
    for name, others in sets.others.items():
        save_photos(out / PHOTOS / name, others)
    return {"methods": results, "shots": SHOTS, "seed": seed, "seconds": time.perf_counter() - started}


def save_photos(folder: Path, images: ImageSet) -> None:
    """Write painted pictures as PNG, in a folder per class if they have labels."""
    for i, image in enumerate(images.images):
        # Folder names must equal class names, which the model uses.
        path = folder / (images.labels[i] if images.labels else "") / f"{i:04}.png"
        assert isinstance(image, Image.Image)
        try:
            place_file(path, partial(image.save, format="PNG"), force=True, durable=False)
        except OSError as error:
            raise SotglpError(f"{path} can't be written ({os_reason(error)}): free disk space") from error
