"""Published numbers, for comparison with results of the same setting; their sources are listed in published.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sotglp.files.packaged import read_packaged
from sotglp.methods.method import METHODS
from sotglp.settings import OodMethod

Kind = Literal["accuracy", "auroc", "fpr95", "shift"]
"""Accuracy on the eleven few-shot benchmarks, OOD detection and domain shift with ImageNet as in-distribution."""

MEAN = "mean"
"""Name of the column with the mean over all other columns of a row."""

SHOTS = 16
ARCHITECTURES = frozenset({"ViT-B-16", "ViT-B-16-quickgelu"})
WEIGHTS = "openai"
IMAGE_SIZE = [224, 224]
UNTRAINED = frozenset(name for name, method in METHODS.items() if not method.uses_shots)
"""Methods that use no labelled image, so that their numbers hold for any number of shots."""


@dataclass(frozen=True)
class Published:
    """A published fraction from 0 to 1, where it is printed, and a remark on it if one is needed."""

    value: float
    source: str
    note: str = ""


def published(
    kind: Kind,
    method: str,
    dataset: str,
    *,
    shots: int,
    backbone: Mapping[str, Any],
    score: OodMethod | None = None,
) -> Published | None:
    """Return a published number, or None if there is none for the same setting.

    ``dataset`` is a dataset or OOD set, or ``mean``; ``score`` is the OOD score that the source names for the row, if
    any; ``backbone`` has ``name``, ``pretrained`` and ``image_size``, as in a result.
    """
    is_same_backbone = (
        backbone.get("name") in ARCHITECTURES
        and backbone.get("pretrained") == WEIGHTS
        and list(backbone.get("image_size", IMAGE_SIZE)) == IMAGE_SIZE
    )
    if not is_same_backbone or (shots != SHOTS and method not in UNTRAINED):
        return None
    for row in _numbers()[kind]:
        if (row["method"], row.get("score")) == (method, score) and dataset in row["values"]:
            value = round(row["values"][dataset] / 100, 4)  # 66.7 becomes 0.667 exactly
            return Published(
                value, _numbers()["sources"][row["source"]], row.get("note", "") if dataset == MEAN else ""
            )
    return None


def published_rows(kind: Kind) -> tuple[tuple[str, OodMethod | None], ...]:
    """Return method and OOD score of each published row, in the order of the source."""
    return tuple((row["method"], row.get("score")) for row in _numbers()[kind])


def published_columns(kind: Kind) -> tuple[str, ...]:
    """Return the datasets with published numbers, in the order of papers, without the mean."""
    return tuple(dict.fromkeys(name for row in _numbers()[kind] for name in row["values"] if name != MEAN))


@cache
def _numbers() -> dict[str, Any]:
    numbers: dict[str, Any] = read_packaged("benchmark", "table", "published")
    return numbers
