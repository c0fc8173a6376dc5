"""The contents of a model file as sections of text for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sotglp.console.table import counted, table_lines
from sotglp.console.text import printable
from sotglp.methods.configs import CONFIG_OF_KIND
from sotglp.model_file.record import ModelRecord
from sotglp.scoring.choice import Choice
from sotglp.settings import Settings

LINE = 100
"""Letters of a line of class names."""


def model_lines(path: Path, record: ModelRecord) -> list[str]:
    """Return the lines of ``sotglp info MODEL``: classes, backbone, settings, training, calibration, versions."""
    backbone = record.backbone
    sections: dict[str, list[str]] = {
        f"{path}: {counted(len(record.classes), 'class', 'classes')}": textwrap.wrap(
            ", ".join(printable(str(label)) for label in record.classes),
            LINE,
            break_long_words=False,
            break_on_hyphens=False,
        ),
        "Backbone": _pairs(
            {
                "name": f"{backbone['name']}, {backbone['pretrained'] or 'random weights'}, "
                f"{backbone['image_size'][0]} pixels",
                "fingerprint": backbone["fingerprint"],
            }
        ),
        "Unknown images": list(_rejection(record)),
        "Training": list(_training(record)),
        "Chosen on held-out shots": [line for choice in record.choices for line in choice_lines(choice)],
        f"Settings of the model, of kind {_kind(record)}": _settings(record.model),
        "Settings of training": _settings(record.training) if record.training else [],
        "Gray values": _pairs(
            {kind: f"{black:g} to {white:g}" for kind, (black, white) in (record.value_ranges or {}).items()}
        ),
        "Written by": _pairs(record.versions),
    }
    lines: list[str] = []
    for title, body in sections.items():
        if body:
            lines += [*([""] if lines else []), title, *(f"  {line}" for line in body)]
    return lines


def _kind(record: ModelRecord) -> str:
    return next(kind for kind, settings in CONFIG_OF_KIND.items() if type(record.model) is settings)


def choice_lines(choice: Choice) -> list[str]:
    """Return the sentence of a choice, and the merits of all candidates, best first."""
    merits = sorted(choice.merits.items(), key=lambda item: -item[1])
    lines = [str(choice)]
    if merits:
        lines.append(f"{choice.measure} of all: " + ", ".join(f"{name} {merit:.1%}" for name, merit in merits))
        lines.append(f"cost: {choice.cost:.3g} times the training steps of one fit")
    return lines


def _training(record: ModelRecord) -> Iterator[str]:
    if record.history:
        last = record.history[-1]
        yield (
            f"{counted(len(record.history), 'epoch')}; at the end loss {last['loss']:.3f}, training accuracy "
            f"{last['accuracy']:.1%}"
        )


def _rejection(record: ModelRecord) -> Iterator[str]:
    calibration = record.calibration
    if calibration is None:
        yield "no threshold: fit with --calibrate or --calibrate-on to reject images of other things"
        return
    yield from _pairs(calibration.described())


def _settings(settings: Settings) -> list[str]:
    """Return name, value and meaning of each setting."""
    fields = type(settings).model_fields
    rows = [[name, _text(value), fields[name].description or ""] for name, value in settings.model_dump().items()]
    return table_lines((), rows)


def _pairs(values: dict[str, Any]) -> list[str]:
    return table_lines((), [[name, str(value)] for name, value in values.items()])


def _text(value: Any) -> str:
    """Return a value as ``--set`` reads it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
