"""Numbers that others published, told only beside results of the same setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sotglp.files.packaged import read_packaged
from sotglp.methods.method import METHODS
from sotglp.settings import OodMethod

Kind = Literal["accuracy", "auroc", "fpr95", "shift"]

MEAN = "mean"
"""Stands for a dataset: the printed mean over all columns of a row."""

SHOTS = 16
ARCHITECTURES = frozenset({"ViT-B-16", "ViT-B-16-quickgelu"})
WEIGHTS = "openai"
IMAGE_SIZE = [224, 224]
UNTRAINED = frozenset(name for name, method in METHODS.items() if not method.uses_shots)
"""Methods that look at no labelled image, so that their numbers hold for any shots."""


@dataclass(frozen=True)
class Published:
    """A published number.

    Attributes
    ----------
    value : float
        A fraction from 0 to 1.
    source : str
        Where it is printed.
    note : str
        What has to be known of it; mostly nothing.
    """

    value: float
    source: str
    note: str = ""


def published_accuracy(method: str, dataset: str, *, shots: int, backbone: Mapping[str, Any]) -> Published | None:
    """Published top-1 accuracy, if there is one and the setting is the same.

    Parameters
    ----------
    method : str
        As suites spell it.
    dataset : str
        One of the eleven few-shot benchmarks as suites spell them, or ``mean`` over all of them.
    shots : int
        Training images of each class; it makes no difference to zero-shot methods.
    backbone : mapping
        ``name``, ``pretrained`` and ``image_size``, as a result holds them.

    References
    ----------
    GalLoP's README; SOT-GLP, arXiv 2603.08347, abstract.
    """
    return _find("accuracy", method, dataset, None, shots, backbone)


def published_ood(
    method: str,
    dataset: str,
    metric: Literal["auroc", "fpr95"],
    *,
    score: OodMethod | None,
    shots: int,
    backbone: Mapping[str, Any],
) -> Published | None:
    """Published OOD metric with ImageNet as in-distribution, if there is one and the setting is the same.

    Parameters
    ----------
    method, shots, backbone
        See :func:`published_accuracy`.
    dataset : str
        ``inaturalist``, ``sun``, ``places``, ``textures``, or ``mean`` over them.
    metric : {"auroc", "fpr95"}
        Which one.
    score : {"mcm", "l-mcm", "gl-mcm"} or None
        The OOD score that the source names for the row; None where it names none.

    References
    ----------
    GalLoP's README; SOT-GLP, arXiv 2603.08347, abstract.
    """
    return _find(metric, method, dataset, score, shots, backbone)


def published_shift(method: str, dataset: str, *, shots: int, backbone: Mapping[str, Any]) -> Published | None:
    """Published accuracy of a model of ImageNet on a shifted relative, if there is one and the setting is the same.

    Parameters
    ----------
    method, shots, backbone
        See :func:`published_accuracy`.
    dataset : str
        ``imagenetv2``, ``imagenet_sketch``, ``imagenet_a``, ``imagenet_r``, or ``mean`` over them.

    References
    ----------
    GalLoP's README.
    """
    return _find("shift", method, dataset, None, shots, backbone)


def published_rows(kind: Kind) -> tuple[tuple[str, OodMethod | None], ...]:
    """Method and OOD score of each published row of a kind, in the order of the source."""
    return tuple((row["method"], row.get("score")) for row in _numbers()[kind])


def published_columns(kind: Kind) -> tuple[str, ...]:
    """Datasets that published rows of a kind have numbers for, in the order of papers; without the mean."""
    return tuple(dict.fromkeys(name for row in _numbers()[kind] for name in row["values"] if name != MEAN))


def _find(
    kind: Kind, method: str, dataset: str, score: str | None, shots: int, backbone: Mapping[str, Any]
) -> Published | None:
    if not _is_their_backbone(backbone) or (shots != SHOTS and method not in UNTRAINED):
        return None
    for row in _numbers()[kind]:
        if (row["method"], row.get("score")) == (method, score) and dataset in row["values"]:
            # Divided in decimals, so that 66.7 becomes what 0.667 is.
            value = round(row["values"][dataset] / 100, 4)
            return Published(
                value, _numbers()["sources"][row["source"]], row.get("note", "") if dataset == MEAN else ""
            )
    return None


def _is_their_backbone(backbone: Mapping[str, Any]) -> bool:
    return (
        backbone.get("name") in ARCHITECTURES
        and backbone.get("pretrained") == WEIGHTS
        and list(backbone.get("image_size", IMAGE_SIZE)) == IMAGE_SIZE
    )


@cache
def _numbers() -> dict[str, Any]:
    numbers: dict[str, Any] = read_packaged("benchmark", "table", "published")
    return numbers
