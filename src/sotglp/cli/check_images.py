"""Problems of a user's labelled images for ``sotglp data check``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sotglp.backbone import Backbone
from sotglp.backbone.precision import choose_device
from sotglp.console.table import counted
from sotglp.errors import SotglpError, some_names
from sotglp.images.check import SetFinding, check_set, describe_copies
from sotglp.images.columns import Columns
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import warn_of_names
from sotglp.images.survey import UNIFORM_ADVICE, with_own_ranges
from sotglp.scoring.label_doubts import find_doubts, out_of_fold, unit_features
from sotglp.settings import InferenceConfig


def check_images(
    paths: list[Path],
    columns: Columns,
    backbone: str | None,
    pretrained: str,
    device: str,
    min_rank_fraction: float,
    cache_dir: Path | None,
) -> list[tuple[list[str], dict[str, Any]]]:
    """Return lines for people and the JSON entry of each folder or manifest; labels are checked with a backbone."""
    loaded = Backbone.load(backbone, pretrained, device=choose_device(device)) if backbone else None
    return [_check(path, columns, loaded, min_rank_fraction, cache_dir) for path in paths]


def _check(
    path: Path, columns: Columns, backbone: Backbone | None, min_rank_fraction: float, cache_dir: Path | None
) -> tuple[list[str], dict[str, Any]]:
    images = with_own_ranges(ImageSet.from_path(path, columns))
    try:
        finding = check_set(images)
    except SotglpError as error:
        raise SotglpError(f"{path} can't be checked: {error}") from error
    warn_of_names(images.classes)
    lines = [
        f"{path}: {'valid' if finding.is_valid else 'broken'}, {_size(finding)}",
        *(f"    problem: {error}" for error in finding.unreadable.values()),
    ]
    copies = [
        {"paths": [images.name(index) for index in group.indices], "labels": list(group.labels)}
        for group in finding.copies
    ]
    uniform = [images.name(index) for index in finding.uniform]
    lines += [
        f"    problem: the same image is in {len(group.labels)} classes, so a label is wrong: "
        + describe_copies(images, group)
        for group in finding.copies
        if len(group.labels) > 1
    ]
    lines += [f"    warning: {text}" for text in _warnings(finding)]
    if uniform:
        are = "is" if len(uniform) == 1 else "are each"
        lines.append(f"    warning: {some_names(uniform)} {are} {UNIFORM_ADVICE}")
    agreement, doubts = _doubts(images, finding, backbone, min_rank_fraction, cache_dir)
    if agreement is not None:
        n_classes = len(finding.counts) - len(finding.singleton_classes)
        lines.append(
            f"    labels: cross-validated agreement {agreement:.0%} (chance {1 / n_classes:.0%}), {len(doubts)} "
            "labels are probably wrong; the lower the agreement, the less reliable these flags are"
        )
    lines += [
        f"    doubt: {one['path']} looks like {one['looks_like']} ({one['probability_of_best']:.2f}); its own "
        f"class has rank {one['rank']} of {one['n_classes']} ({one['probability']:.2f})"
        for one in doubts
    ]
    unreadable = [{"path": images.name(index), "reason": error.reason} for index, error in finding.unreadable.items()]
    result = {
        "path": str(path),
        "is_valid": finding.is_valid,
        "counts": finding.counts,
        "unreadable": unreadable,
        "copies": copies,
        "singleton_classes": finding.singleton_classes,
        "agreement": agreement,
        "doubts": None if agreement is None else doubts,
    }
    if uniform:
        result["nearly_uniform"] = uniform
    return lines, result


def _doubts(
    images: ImageSet, finding: SetFinding, backbone: Backbone | None, min_rank_fraction: float, cache_dir: Path | None
) -> tuple[float | None, list[dict[str, Any]]]:
    """Return the cross-validated agreement, None without a backbone or two classes, and labels in doubt."""
    labels = images.labels or ()
    chosen = [i for i, label in enumerate(labels) if i not in finding.unreadable and finding.counts[label] > 1]
    names = sorted({labels[i] for i in chosen})
    if backbone is None or len(names) < 2:
        return None, []
    subset = images.take(chosen)
    targets = subset.targets(names)
    features = unit_features(backbone, subset, InferenceConfig(show_progress=True), cache_dir)
    probabilities = out_of_fold(features, targets)
    doubts = [
        {
            "path": subset.name(doubt.index),
            "label": labels[chosen[doubt.index]],
            "looks_like": names[doubt.best],
            "rank": doubt.rank,
            "n_classes": doubt.n_classes,
            "probability": doubt.probability_own,
            "probability_of_best": doubt.probability_best,
        }
        for doubt in find_doubts(probabilities, targets, min_rank_fraction)
    ]
    return float((probabilities.argmax(axis=1) == targets).mean()), doubts


def _size(finding: SetFinding) -> str:
    smallest, largest = min(finding.counts.values()), max(finding.counts.values())
    per_class = f"{smallest} to {largest}" if smallest < largest else f"{largest}"
    classes = counted(len(finding.counts), "class", "classes")
    return f"{classes}, {sum(finding.counts.values())} readable images, {per_class} per class"


def _warnings(finding: SetFinding) -> list[str]:
    lines = []
    if n_copies := sum(len(group.indices) - 1 for group in finding.copies if len(group.labels) == 1):
        are = "image is a copy of another" if n_copies == 1 else "images are copies of others"
        lines.append(f"{n_copies} {are} in the same class, byte for byte: remove them")
    if finding.singleton_classes:
        lines.append(
            f"classes with fewer than 2 images, whose labels can't be checked: {some_names(finding.singleton_classes)}"
        )
    if finding.uneven:
        smallest = min(finding.counts, key=finding.counts.__getitem__)
        largest = max(finding.counts, key=finding.counts.__getitem__)
        lines.append(
            f"class sizes are very uneven: {smallest} has {counted(finding.counts[smallest], 'image')}, {largest} has "
            f"{finding.counts[largest]}"
        )
    return lines
