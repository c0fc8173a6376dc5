"""Results of a benchmark: one line of JSON per finished cell, written as soon as the cell is finished."""

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
    """One method on one dataset; shots and seed are 0 if the result depends on neither."""

    suite: str
    protocol: str
    dataset: str
    method: str
    shots: int
    seed: int


class Curves(_Record):
    """Mean loss and accuracy over the training images of each epoch of a fit."""

    loss: list[float]
    accuracy: list[float]


class Metrics(_Record):
    """Metrics of a cell, as fractions from 0 to 1.

    Attributes
    ----------
    accuracy, accuracy_global, accuracy_local : float
        Of both branches together and of each alone, on ``n`` test images.
    ood : dict
        ``auroc``, ``fpr95``, ``aupr_in``, ``aupr_out`` and ``n`` of each out-of-distribution set.
    shift, transfer : dict
        ``accuracy`` and ``n`` of each set of the same classes in another style, and of other classes; None for a
        method that can't predict other classes.
    prompts : dict or None
        ``overlap``, ``dominance`` and ``plan_entropy``; None for a model without local prompts.
    base_to_new : dict or None
        ``base``, ``new``, ``harmonic_mean``, ``n_base`` and ``n_new``, for that protocol.
    curves : Curves or None
        Training by epoch; None for a method without training, and in results of older versions.
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
    curves: Curves | None = None


class Cost(_Record):
    """Cost of a cell: seconds, peak memory in 2**20 bytes, and number of threads."""

    fit_seconds: float
    evaluate_seconds: float
    peak_memory_mb: float | None
    threads: int


class Result(_Record):
    """A finished cell, with its key, settings, package versions and time in UTC."""

    key: str
    cell: Cell
    metrics: Metrics
    cost: Cost
    backbone: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]
    finished: str


def append(path: Path, result: Result) -> None:
    """Append a result and flush it to disk, replacing the incomplete line of a killed run.

    Several processes may append to the same file. If the disk rejects the result, the file is unchanged.
    """
    line = json.dumps(result.model_dump(), ensure_ascii=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a buffer would be written again on closing.
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
        raise SotglpError(f"the result can't be added to {path} ({os_reason(error)}): free space and resume") from error


def _write_all(file: io.FileIO, content: bytes) -> None:
    """Write everything, also if a nearly full disk accepts only pieces."""
    while content:
        content = content[file.write(content) :]


def read(path: Path) -> list[Result]:
    """Read the results in the order of their lines, of the same key the last; an incomplete last line is skipped."""
    try:
        # The last line may end within a character: it is split off before decoding.
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        text = whole.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SotglpError(f"{path} can't be read as results of `sotglp benchmark`: check the path") from error
    if torn:
        warnings.warn(
            f"{path} ends in an incomplete line, which is skipped: its cell will run again", SotglpWarning, stacklevel=2
        )
    results: dict[str, Result] = {}
    # Not splitlines: labels may contain other line separators.
    for number, line in enumerate(text.split("\n") if text else (), start=1):
        try:
            result = Result.model_validate_json(line)
        except ValidationError as error:
            raise SotglpError(
                f"line {number} of {path} is not a result: remove the line, and its cell will run again"
            ) from error
        results[result.key] = result
    return list(results.values())


def latest(results: Sequence[Result]) -> list[Result]:
    """Keep the last result of each cell and backbone, for cells that ran again with other settings, images or weights.

    The name of the suite is ignored, as in the key of a cell.
    """

    def identity(result: Result) -> tuple[str, ...]:
        weights = (result.backbone.get(name) for name in ("name", "pretrained", "image_size"))
        return tuple(map(str, (*result.cell.model_dump(exclude={"suite"}).values(), *weights)))

    return list({identity(result): result for result in results}.values())
