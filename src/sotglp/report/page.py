"""The report as one HTML file without scripts, which loads nothing from elsewhere."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sotglp.explain.map_style import VEIL
from sotglp.files.versions import installed_versions
from sotglp.methods.method import infer_method
from sotglp.model_file.record import ModelRecord
from sotglp.report import charts
from sotglp.report.findings import Findings, OodSet
from sotglp.report.mistakes import ClassMap, Mistake
from sotglp.report.pictures import MapPaths, map_paths
from sotglp.report.reproduce import fit_command, fit_command_caveats
from sotglp.report.template import percent, render_page, setting
from sotglp.report.verdict import verdict
from sotglp.settings import Settings

MAX_TABLE_CLASSES = 30
"""Most classes for which the confusion matrix is a table of numbers."""

MAX_WORST = 10
MAX_PAIRS = 20
MAX_PROMPTS = 8

CURVES = (
    ("loss", "loss", False),
    ("accuracy", "accuracy on training images", True),
    ("learning_rate", "learning rate", False),
)


@dataclass(frozen=True)
class About:
    """Origin of a report: model file and its record, sources of the images, the command that makes it, and its date."""

    model_file: str
    record: ModelRecord
    test: str
    ood: Mapping[str, str]
    command: str
    made_on: str


@dataclass(frozen=True)
class MapDrawing:
    """Mass of the prompts of a class: of all together, and of each."""

    map: ClassMap
    together: MapPaths
    each: tuple[MapPaths, ...]


def render(findings: Findings, about: About) -> bytes:
    """Render findings as an HTML page in UTF-8; equal arguments give equal bytes."""
    return render_page("report.html.jinja", _content(findings, about))


def _content(findings: Findings, about: About) -> dict[str, Any]:
    confusion, record = findings.confusion, about.record
    is_large = len(confusion.labels) > MAX_TABLE_CLASSES
    return {
        "about": about,
        "made_on": about.made_on,
        "version": installed_versions()["sotglp"],
        "found": findings,
        "method": infer_method(record.model),
        "confusion_chart": charts.confusion_matrix(confusion.shares) if is_large else None,
        "pairs": confusion.most_confused(MAX_PAIRS) if is_large else [],
        "worst": confusion.worst(MAX_WORST),
        "verdict": verdict(findings),
        "veil": VEIL,
        "mistakes": [
            (replace(mistake, name=_inside(about.test, mistake.name)), _drawings(mistake))
            for mistake in findings.mistakes
        ],
        "unreadable": [_inside(about.test, name) for name in findings.unreadable],
        "reliability_chart": charts.reliability_diagram(findings.reliability, findings.calibrated),
        "ood": {name: (one, *_ood_charts(findings, one)) for name, one in findings.ood.items()},
        "curves": _curves(record),
        "settings": {"model": _settings(record.model), "training": _settings(record.training)},
        "fit_command": fit_command(record, about.model_file),
        "fit_command_caveats": fit_command_caveats(record),
        "versions": _versions(record),
    }


def _inside(folder: str, name: str) -> str:
    """Return the path of an image in a folder, from there; any other name as it is."""
    path = Path(name)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else name


def _drawings(mistake: Mistake) -> list[MapDrawing]:
    draw = partial(map_paths, mistake.thumbnail)
    return [
        MapDrawing(
            one,
            draw(one.boxes, one.mean_mass),
            tuple(draw(one.boxes, mass) for mass in one.mass[:MAX_PROMPTS]) if len(one.mass) > 1 else (),
        )
        for one in mistake.maps
    ]


def _ood_charts(findings: Findings, one: OodSet) -> tuple[Markup, Markup]:
    inside, threshold = findings.images.scores, findings.threshold
    at_threshold = None
    if threshold is not None:
        at_threshold = (float((one.scores >= threshold).mean()), float((inside >= threshold).mean()))
    return charts.score_histogram(inside, one.scores, threshold), charts.roc_curve(one.fpr, one.tpr, at_threshold)


def _curves(record: ModelRecord) -> list[tuple[str, Markup]]:
    """A caption and a chart for each value that the training history has."""
    history, found = record.history or [], []
    for key, label, is_share in CURVES:
        if history and all(key in entry for entry in history):
            values = [entry[key] for entry in history]
            first, last = (percent(value) if is_share else f"{value:.3g}" for value in (values[0], values[-1]))
            chart = charts.training_curve([entry["epoch"] for entry in history], values, label, is_share=is_share)
            found.append((f"{label.capitalize()}: from {first} to {last}", chart))
    return found


def _settings(settings: Settings | None) -> list[tuple[str, str, str]]:
    """Name, value and meaning of each setting."""
    if settings is None:
        return []
    fields = type(settings).model_fields
    return [(name, setting(value), fields[name].description or "") for name, value in settings.model_dump().items()]


def _versions(record: ModelRecord) -> list[tuple[str, str, str]]:
    """Each package with its versions when the model file and when the report was written."""
    then, now = record.versions, {**installed_versions(), "Python": platform.python_version()}
    return [(name, then.get(name, "unknown"), now.get(name, "unknown")) for name in {**then, **now}]
