"""Results of a benchmark: one line of JSON for each finished cell, kept the moment it is there."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.files.atomic import lock, os_reason

RESULTS_FILE = "results.jsonl"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Cell(_Record):
    """One method on one dataset; shots and seed are 0 where the result depends on neither."""

    suite: str
    protocol: str
    dataset: str
    method: str
    shots: int
    seed: int


class Metrics(_Record):
    """What was measured, as fractions from 0 to 1.

    Attributes
    ----------
    accuracy, accuracy_global, accuracy_local : float
        Of the prediction, and of either branch alone, on ``n`` test images.
    ood : dict
        ``auroc``, ``fpr95``, ``aupr_in``, ``aupr_out`` and ``n`` of each out-of-distribution set.
    shift, transfer : dict
        ``accuracy`` and ``n`` of each set of the same classes in another style, and of other classes; the accuracy is
        None of a method that has nothing to say of other classes.
    prompts : dict or None
        ``overlap``, ``dominance`` and ``plan_entropy``; None of a model without local prompts.
    base_to_new : dict or None
        ``base``, ``new``, ``harmonic_mean``, ``n_base`` and ``n_new`` under that protocol.
    """

    accuracy: float
    accuracy_global: float
    accuracy_local: float
    n: int
    ood: dict[str, dict[str, float]] = Field(default_factory=dict)
    shift: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    transfer: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    prompts: dict[str, float] | None = None
    base_to_new: dict[str, float | None] | None = None


class Cost(_Record):
    """What a cell took: seconds, the peak of memory in 2**20 bytes, and the threads that it had."""

    fit_seconds: float
    evaluate_seconds: float
    peak_memory_mb: float | None
    threads: int


class Result(_Record):
    """A finished cell: what it was, what was measured, and everything that it depends on.

    Attributes
    ----------
    key : str
        From :func:`sotglp.benchmark.cells.cell_key`.
    cell, metrics, cost
        See there.
    backbone : dict
        Name, weights, fingerprint, image size and patch attention.
    settings : dict
        Of the model and of its training.
    versions : dict
        Versions of the packages that computed it.
    finished : str
        When, in UTC.
    """

    key: str
    cell: Cell
    metrics: Metrics
    cost: Cost
    backbone: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]
    finished: str


def append(path: Path, result: Result) -> None:
    """Add a line, and wait until the disk has it; what a killed run left of a line is cut off first.

    Other processes may add lines to the same file.

    Raises
    ------
    SotglpError
        If the disk refuses it; the file is as it was then.
    """
    line = json.dumps(result.model_dump(), ensure_ascii=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer, which would be written once more when the file is closed.
        with open(path, "ab+", buffering=0) as file:
            lock(file)
            file.seek(0)
            n_whole = file.read().rfind(b"\n") + 1
            file.truncate(n_whole)
            try:
                _write_all(file, line)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(n_whole)
                raise
    except OSError as error:
        raise SotglpError(f"the result can't be added to {path} ({os_reason(error)}): make room and go on") from error


def _write_all(file: io.FileIO, content: bytes) -> None:
    """Write what a nearly full disk may take piece by piece."""
    while content:
        content = content[file.write(content) :]


def read(path: Path) -> list[Result]:
    """Results in the order of their lines; of two with one key, the last.

    Raises
    ------
    SotglpError
        If the file is missing or a line of it is no result.

    Warns
    -----
    SotglpWarning
        If the last line is torn, as a killed run leaves it; it is left out.
    """
    try:
        # A run that is killed may leave half a letter: the last line is split off before text is made of it.
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        text = whole.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SotglpError(f"{path} can't be read as results of `sotglp benchmark`: check the path") from error
    if torn:
        warnings.warn(
            f"{path} ends in half a line, which is left out: that cell will be run again", SotglpWarning, stacklevel=2
        )
    results: dict[str, Result] = {}
    # Other line separators may stand inside a label, so that splitlines won't do.
    for number, line in enumerate(text.split("\n") if text else (), start=1):
        try:
            result = Result.model_validate_json(line)
        except ValidationError as error:
            raise SotglpError(
                f"{path} holds no result in line {number}: remove the line, and its cell will be run again"
            ) from error
        results[result.key] = result
    return list(results.values())


def latest(results: Sequence[Result]) -> list[Result]:
    """Of results for one cell on one backbone, the last: settings, images or weights were changed between.

    Which suite ran a cell makes no difference, as it makes none to its key.
    """

    def what(result: Result) -> tuple[str, ...]:
        weights = (result.backbone.get(name) for name in ("name", "pretrained", "image_size"))
        return tuple(map(str, (*result.cell.model_dump(exclude={"suite"}).values(), *weights)))

    return list({what(result): result for result in results}.values())
