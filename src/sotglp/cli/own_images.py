"""What ``sotglp data check`` tells of a user's own labelled images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotglp.errors import SotglpError

if TYPE_CHECKING:
    from sotglp.backbone import Backbone
    from sotglp.images.check import SetFinding
    from sotglp.images.image_set import ImageSet
    from sotglp.scoring.label_doubts import Doubt


@dataclass(frozen=True)
class Report:
    """What is told of one set: lines for people, a record for programs, and whether nothing is broken."""

    lines: list[str]
    told: dict[str, Any]
    is_valid: bool


@dataclass(frozen=True)
class Doubts:
    """Share of labels that the judge would have given too, and doubts by positions in the set with the likelier class.

    Where that share is low, the backbone does not know such images, and its doubts say little.
    """

    agreement: float
    found: list[tuple[Doubt, str]]


def report_on(path: Path, backbone: Backbone | None, worst: float, cache_dir: Path | None) -> Report:
    """Check the images of a folder or manifest, and their labels where there is a backbone to look with.

    Raises
    ------
    SotglpError
        If there are no labelled images.
    """
    from sotglp.images.check import check_set
    from sotglp.images.image_set import ImageSet

    images = ImageSet.from_path(path)
    try:
        finding = check_set(images)
    except SotglpError as error:
        raise SotglpError(f"{path} can't be checked: {error}") from error
    doubts = None if backbone is None else _doubts(images, finding, backbone, worst, cache_dir)
    return Report(
        [
            f"{path}: {'sound' if finding.is_valid else 'broken'}, {_size(finding)}",
            *(f"    problem: {text}" for text in _problems(images, finding)),
            *(f"    warning: {text}" for text in _warnings(finding)),
            *(_doubt_lines(images, doubts) if doubts else []),
        ],
        {"path": str(path), "is_valid": finding.is_valid, **_told(images, finding, doubts)},
        finding.is_valid,
    )


def _doubts(
    images: ImageSet, finding: SetFinding, backbone: Backbone, worst: float, cache_dir: Path | None
) -> Doubts | None:
    """Doubts about the labels of readable images; None where there are no two classes to compare."""
    from sotglp.scoring.label_doubts import find_doubts, out_of_fold, unit_features
    from sotglp.settings import InferenceConfig

    labels = images.labels or ()
    chosen = [i for i, label in enumerate(labels) if i not in finding.unreadable and finding.counts[label] > 1]
    names = sorted({labels[i] for i in chosen})
    if len(names) < 2:
        return None
    rest = images.take(chosen)
    features = unit_features(backbone, rest, InferenceConfig(show_progress=True), cache_dir)
    targets = rest.targets(names)
    probabilities = out_of_fold(features, targets)
    return Doubts(
        float((probabilities.argmax(axis=1) == targets).mean()),
        [
            (replace(doubt, index=chosen[doubt.index]), names[doubt.best])
            for doubt in find_doubts(probabilities, targets, worst)
        ],
    )


def _size(finding: SetFinding) -> str:
    smallest, largest = min(finding.counts.values()), max(finding.counts.values())
    of_each = f"{smallest} to {largest}" if smallest < largest else f"{largest}"
    classes = "1 class" if len(finding.counts) == 1 else f"{len(finding.counts)} classes"
    return f"{classes}, {sum(finding.counts.values())} images that can be read, {of_each} of a class"


def _problems(images: ImageSet, finding: SetFinding) -> list[str]:
    lines = [str(error) for error in finding.unreadable.values()]
    for group in finding.copies:
        if len(group.labels) > 1:
            where = ", ".join(images.name(index) for index in group.indices)
            lines.append(f"the same image stands in {len(group.labels)} classes, so a label is wrong: {where}")
    return lines


def _warnings(finding: SetFinding) -> list[str]:
    from sotglp.errors import some_names

    lines = []
    if copies := sum(len(group.indices) - 1 for group in finding.copies if len(group.labels) == 1):
        are = "image is a copy of another" if copies == 1 else "images are copies of others"
        lines.append(f"{copies} {are} in the same class, byte for byte: leave them out")
    if finding.singleton_classes:
        lines.append(
            f"classes with fewer than two images, whose labels can't be judged: {some_names(finding.singleton_classes)}"
        )
    if finding.uneven:
        smallest = min(finding.counts, key=finding.counts.__getitem__)
        largest = max(finding.counts, key=finding.counts.__getitem__)
        lines.append(
            f"classes differ much in size: {smallest} has {finding.counts[smallest]} and {largest} "
            f"{finding.counts[largest]} images"
        )
    return lines


def _doubt_lines(images: ImageSet, doubts: Doubts) -> list[str]:
    lines = [
        f"    labels: {doubts.agreement:.0%} come out the same, judged by other images, and {len(doubts.found)} may "
        "be wrong; the lower that share, the less the doubts say"
    ]
    for doubt, best in doubts.found:
        lines.append(
            f"    doubt: {images.name(doubt.index)} looks like {best} ({doubt.probability_best:.2f}); its own class is "
            f"number {doubt.rank} of {doubt.n_classes} ({doubt.probability_own:.2f})"
        )
    return lines


def _told(images: ImageSet, finding: SetFinding, doubts: Doubts | None) -> dict[str, Any]:
    labels = images.labels or ()
    return {
        "counts": finding.counts,
        "unreadable": [
            {"path": images.name(index), "reason": error.reason} for index, error in finding.unreadable.items()
        ],
        "copies": [
            {"paths": [images.name(index) for index in group.indices], "labels": list(group.labels)}
            for group in finding.copies
        ],
        "singleton_classes": finding.singleton_classes,
        "agreement": None if doubts is None else doubts.agreement,
        "doubts": None
        if doubts is None
        else [
            {
                "path": images.name(doubt.index),
                "label": labels[doubt.index],
                "looks_like": best,
                "rank": doubt.rank,
                "n_classes": doubt.n_classes,
                "probability": doubt.probability_own,
                "probability_of_best": doubt.probability_best,
            }
            for doubt, best in doubts.found
        ],
    }
