"""A page of findings: one HTML file without scripts and without anything from elsewhere."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sotglp.console.text import printable
from sotglp.files.versions import installed_versions
from sotglp.model_file.record import ModelRecord
from sotglp.report import charts
from sotglp.report.findings import Findings, Mistake, OodSet
from sotglp.report.intervals import Interval
from sotglp.report.maps import MapPaths, map_paths
from sotglp.report.pictures import ClassMap
from sotglp.report.reproduce import fit_command, fit_command_caveats, method_of
from sotglp.settings import Settings

MOST_FIELDS = 30
"""Up to so many classes a confusion matrix is a table with numbers."""

MOST_WORST = 10
MOST_PAIRS = 20
MOST_PROMPTS_DRAWN = 8


@dataclass(frozen=True)
class About:
    """What a report tells beside findings.

    Attributes
    ----------
    model_file : str
        Name of the model file.
    record : ModelRecord
        What that file tells.
    test, ood : str, dict of str to str
        Where the images came from; OOD sets by name.
    command : str
        The command that makes this report.
    made_on : str
        The date, as it shall be read.
    """

    model_file: str
    record: ModelRecord
    test: str
    ood: Mapping[str, str]
    command: str
    made_on: str


@dataclass(frozen=True)
class MapDrawing:
    """Where the prompts of a class looked, all together and each alone."""

    map: ClassMap
    together: MapPaths
    each: tuple[MapPaths, ...]


def render(findings: Findings, about: About) -> bytes:
    """Write findings as a page, in UTF-8; the same findings give the same bytes.

    Parameters
    ----------
    findings : Findings
        From :func:`sotglp.report.findings.evaluate_for_report`.
    about : About
        What else is told.
    """
    environment = Environment(
        loader=PackageLoader("sotglp.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    for spell in (percent, between, number, counted, setting):
        environment.filters[spell.__name__] = spell
    text = environment.get_template("report.html.jinja").render(_content(findings, about))
    # A byte of a file name that is no UTF-8 is written out already, as a terminal would show it.
    return text.encode("utf-8")


def percent(value: float) -> str:
    """A share in percent, which no line break parts from its sign."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def between(interval: Interval) -> str:
    """An interval of shares in percent."""
    return f"{100 * interval.low:.1f} to {percent(interval.high)}"


def number(value: float) -> str:
    """A number with three digits behind the point."""
    return f"{value:.3f}"


def setting(value: Any) -> str:
    """A setting as people spell it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(setting, value))
    return {None: "none", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)


def counted(count: int, what: str, many: str | None = None) -> str:
    """A number of things, such as "1 image" or "2 images"."""
    return f"{count} {what if count == 1 else many or what + 's'}"


def _shown(value: Any) -> Any:
    """Text from files and folders without characters that a page can't hold or that turn others round."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _content(findings: Findings, about: About) -> dict[str, Any]:
    confusion, record = findings.confusion, about.record
    is_large = len(confusion.labels) > MOST_FIELDS
    return {
        "about": about,
        "found": findings,
        "method": method_of(record.model),
        "confusion_chart": charts.confusion_field(confusion.shares) if is_large else None,
        "pairs": confusion.most_confused(MOST_PAIRS) if is_large else [],
        "worst": confusion.worst(MOST_WORST),
        "mistakes": [(mistake, _drawings(mistake)) for mistake in findings.mistakes],
        "reliability_chart": charts.reliability_chart(findings.reliability, findings.calibrated),
        "ood": {
            name: (one, *_ood_charts(findings, one, place)) for place, (name, one) in enumerate(findings.ood.items())
        },
        "curves": _curves(record),
        "settings": {"model": _settings(record.model), "training": _settings(record.training)},
        "fit_command": fit_command(record, about.model_file),
        "fit_command_caveats": fit_command_caveats(record),
        "versions": _versions(record),
    }


def _drawings(mistake: Mistake) -> list[MapDrawing]:
    if mistake.looked is None:
        return []
    draw = partial(map_paths, mistake.looked.thumbnail)
    return [
        MapDrawing(
            one,
            draw(one.boxes, one.together),
            tuple(draw(one.boxes, mass) for mass in one.mass[:MOST_PROMPTS_DRAWN]) if len(one.mass) > 1 else (),
        )
        for one in mistake.looked.maps
    ]


def _ood_charts(findings: Findings, one: OodSet, place: int) -> tuple[Markup, Markup]:
    inside, threshold = findings.answers.scores, findings.threshold
    at_threshold = None
    if threshold is not None:
        at_threshold = (float((one.scores >= threshold).mean()), float((inside >= threshold).mean()))
    return (
        charts.score_histogram(inside, one.scores, threshold, f"scores {place}"),
        charts.roc_chart(one.false_accepted, one.true_accepted, at_threshold, f"roc {place}"),
    )


def _curves(record: ModelRecord) -> list[tuple[str, Markup]]:
    """What was noted in each epoch, and how it went in words."""
    history = record.history
    if not history:
        return []
    epochs = [entry["epoch"] for entry in history]
    found = []
    for key, label, is_share in (
        ("loss", "loss", False),
        ("accuracy", "accuracy on training images", True),
        ("learning_rate", "learning rate", False),
    ):
        if all(key in entry for entry in history):
            values = [entry[key] for entry in history]
            first, last = (percent(value) if is_share else f"{value:.3g}" for value in (values[0], values[-1]))
            said = f"{label.capitalize()} goes from {first} to {last}"
            found.append((said, charts.curve(epochs, values, label, is_share=is_share, name=f"curve {key}")))
    return found


def _settings(settings: Settings | None) -> list[tuple[str, str, str]]:
    """Name, value and meaning of each setting."""
    if settings is None:
        return []
    fields = type(settings).model_fields
    return [(name, setting(value), fields[name].description or "") for name, value in settings.model_dump().items()]


def _versions(record: ModelRecord) -> list[tuple[str, str, str]]:
    """Name, version that wrote the model file, version that made the report."""
    then, now = record.versions, {**installed_versions(), "Python": platform.python_version()}
    return [(name, then.get(name, "not told"), now.get(name, "not told")) for name in {**then, **now}]
