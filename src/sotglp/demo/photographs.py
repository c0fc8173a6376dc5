"""The demo on photographs from end to end: methods, results, a model, a figure and a report."""

from __future__ import annotations

import shlex
import time
from datetime import date
from pathlib import Path
from typing import Any

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import PHOTO, default_ood_method, preset_for
from sotglp.console.progress import note
from sotglp.demo.folder import MODEL, PHOTOS, check_folder
from sotglp.demo.photo_comparison import compare_methods, scored_by
from sotglp.demo.photo_gallery import draw_photo_gallery
from sotglp.demo.photo_set import TEST, UNKNOWN, copy_photos, load_photos, packaged_photos
from sotglp.explain.explanation import explain_each
from sotglp.files.atomic import write_file
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.model_file.record import read_record
from sotglp.model_file.save import save_model
from sotglp.report.findings import evaluate_for_report
from sotglp.report.page import About, render
from sotglp.settings import InferenceConfig, Preset, TrainConfig

PICTURE = "prompts.png"
REPORT = "report.html"
FILES = (MODEL, PICTURE, REPORT)
"""What the demo writes besides the photos and results."""

BACKBONE = PHOTO
SHOTS = 16

SHOWN = (
    "avocado/Avocado_003.jpg",
    "banana/Banana_003.jpg",
    "carrots/Carrots_004.jpg",
    "kiwi/Kiwi_004.jpg",
    "lemon/Lemon_003.jpg",
)
"""Test photos of the figure: the first one of each of the first five classes."""


def training_settings() -> TrainConfig:
    """Return the settings of training that come with the backbone."""
    return preset_for(BACKBONE, Preset()).training


def run_photographs(out: Path, *, seed: int = 1, force: bool = False, show_progress: bool = True) -> dict[str, Any]:
    """Compare methods on photographs; write ``photos``, a model, a figure and a report of it to a folder.

    Return results of ``methods`` by name, ``classes``, ``backbone``, ``shots``, ``seed``, ``encoding_seconds`` and
    ``seconds``.
    """
    started = time.perf_counter()
    check_folder(out, FILES, force=force)
    backbone = Backbone.load(BACKBONE)
    photos = load_photos(packaged_photos())
    settings = training_settings().model_copy(update={"seed": seed, "shots": SHOTS})
    inference = InferenceConfig(ood_method=default_ood_method(backbone.name, has_shots=True))
    found = compare_methods(backbone, photos, settings, inference, show_progress=show_progress)
    model = found.fitted.model
    inference = scored_by(model, inference)
    note(f"writing to {out}", show=show_progress)
    out.mkdir(parents=True, exist_ok=True)
    save_model(out / MODEL, model, training=settings, history=found.fitted.history, force=force)
    copy_photos(out / PHOTOS)
    write_file(out / PICTURE, lambda beside: _draw(model, out / PHOTOS / TEST, inference, beside), force=force)
    page = _report(model, out, inference)
    write_file(out / REPORT, lambda beside: beside.write_bytes(page), force=force)
    return {
        "methods": found.results,
        "classes": list(model.class_names),
        "backbone": backbone.name,
        "shots": SHOTS,
        "seed": seed,
        "encoding_seconds": found.encoding_seconds,
        "seconds": time.perf_counter() - started,
    }


def _draw(model: AdaptedModel, test: Path, inference: InferenceConfig, target: Path) -> None:
    images = ImageSet.from_items([test / name for name in SHOWN])
    labels = [Path(name).parent.name for name in SHOWN]
    draw_photo_gallery(list(explain_each(model, images, 1, inference)), labels, target)


def _report(model: AdaptedModel, out: Path, inference: InferenceConfig) -> bytes:
    """Render the page that `sotglp report` makes of the model, the test photos and the unknown ones."""
    photos = load_photos(out / PHOTOS)
    findings = evaluate_for_report(model, photos.test, {UNKNOWN: photos.unknown}, inference)
    test, unknown = str(out / PHOTOS / TEST), str(out / PHOTOS / UNKNOWN)
    words = ["sotglp", "report", str(out / MODEL), test, "--ood", unknown, "--out", str(out / REPORT)]
    about = About(
        MODEL, read_record(out / MODEL), test, {UNKNOWN: unknown}, shlex.join(words), date.today().isoformat()
    )
    return render(findings, about)
