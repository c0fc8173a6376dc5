"""Problems of a user's labelled images for ``sotglp data check``."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from sotglp.backbone import Backbone
from sotglp.backbone.precision import choose_device
from sotglp.cli.corrections import write_suggestions
from sotglp.console.table import counted
from sotglp.errors import SotglpError, SotglpWarning, some_names
from sotglp.files.atomic import write_file
from sotglp.images.check import SetFinding, check_set, describe_copies
from sotglp.images.columns import Columns
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import warn_of_names
from sotglp.images.splits import read_sets
from sotglp.images.survey import UNIFORM_ADVICE, with_own_ranges
from sotglp.scoring.set_review import DuplicateGroup, SetReview, find_duplicate_groups, review_labels

MOST_GROUPS = 10
"""Groups of near-duplicates that are printed; JSON and the page have all."""

KINDS = {
    "across_sets": "in several sets",
    "across_classes": "in several classes",
    "within_class": "within a class",
}


def check_images(
    paths: list[Path],
    columns: Columns,
    backbone: str | None,
    pretrained: str,
    device: str,
    cache_dir: Path | None,
    page: Path | None,
    corrections: Path | None,
    *,
    force: bool,
) -> tuple[list[str], dict[str, Any]]:
    """Return lines for people and entries of the JSON; write the page and the table of corrections if asked for."""
    reviews = review_images(paths, columns, backbone, pretrained, device, cache_dir)
    groups = find_duplicate_groups(reviews)
    lines = [line for review in reviews for line in review_lines(review)] + duplicate_lines(groups)
    if page:
        _write_page(page, paths, reviews, groups, backbone, force=force)
        lines.append(f"{page}: a page with the images in question")
    if corrections:
        n_rows = write_suggestions(paths[0], reviews, groups, corrections, force=force)
        lines.append(
            f"{corrections}: {counted(n_rows, 'row')}; fill in the column action, then `sotglp data apply {paths[0]} "
            f"{corrections} --out FOLDER`"
        )
    return lines, {
        "image_sets": [review.to_dict() for review in reviews],
        "near_duplicates": [group.to_dict() for group in groups],
    }


def _write_page(
    page: Path,
    paths: list[Path],
    reviews: Sequence[SetReview],
    groups: Sequence[DuplicateGroup],
    backbone: str | None,
    *,
    force: bool,
) -> None:
    from sotglp.report.label_page import LabelPageOrigin, render_label_page

    names = [str(path) for path in paths]
    command = shlex.join(["sotglp", "data", "check", *names, "--html", str(page)])
    command += f" --backbone {shlex.quote(backbone)}" if backbone else " --skip-labels"
    origin = LabelPageOrigin(command, " ".join(names), backbone, date.today().isoformat())
    content = render_label_page(reviews, groups, origin)
    write_file(page, lambda beside: beside.write_bytes(content), force=force)


def review_images(
    paths: list[Path], columns: Columns, backbone: str | None, pretrained: str, device: str, cache_dir: Path | None
) -> list[SetReview]:
    """Check each folder, split in a folder, or manifest; labels are checked with a backbone."""
    loaded = Backbone.load(backbone, pretrained, device=choose_device(device)) if backbone else None
    return [review for path in paths for review in _review_path(path, columns, loaded, cache_dir)]


def _review_path(path: Path, columns: Columns, backbone: Backbone | None, cache_dir: Path | None) -> list[SetReview]:
    with _noted() as about_path:
        sets = read_sets(path, columns)
    return [_review(name, images, about_path, backbone, cache_dir) for name, images in sets.items()]


def _review(
    path: Path, images: ImageSet, about_path: list[str], backbone: Backbone | None, cache_dir: Path | None
) -> SetReview:
    with _noted() as about_set:
        images = with_own_ranges(images)
        try:
            finding = check_set(images)
        except SotglpError as error:
            raise SotglpError(f"{path} can't be checked: {error}") from error
        warn_of_names(images.classes)
    labels = review_labels(images, finding, backbone, cache_dir) if backbone else None
    return SetReview(str(path), images, finding, labels, (*about_path, *about_set))


@contextmanager
def _noted() -> Iterator[list[str]]:
    """Collect the texts of warnings of sotglp; all warnings are issued at the end."""
    texts: list[str] = []
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield texts
    finally:
        for one in caught:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
            if issubclass(one.category, SotglpWarning):
                texts.append(str(one.message))


def review_lines(review: SetReview) -> list[str]:
    """Return lines for people about one set."""
    finding, images = review.finding, review.images
    lines = [
        f"{review.name}: {'valid' if finding.is_valid else 'broken'}, {_size(finding)}",
        *(f"    problem: {error}" for error in finding.unreadable.values()),
    ]
    lines += [
        f"    problem: the same image is in {len(group.labels)} classes, so a label is wrong: "
        + describe_copies(images, group)
        for group in finding.copies
        if len(group.labels) > 1
    ]
    lines += [f"    warning: {text}" for text in _warnings(finding)]
    for indices, advice in ((finding.uniform, UNIFORM_ADVICE), (finding.dark, "almost black; look at it")):
        if indices:
            are = "is" if len(indices) == 1 else "are each"
            lines.append(f"    warning: {some_names([images.name(i) for i in indices])} {are} {advice}")
    return lines + _label_lines(review)


def duplicate_lines(groups: Sequence[DuplicateGroup]) -> list[str]:
    """Return lines for people about near-duplicates, across sets first."""
    if not groups:
        return []
    of_kind = {kind: [group for group in groups if group.kind == kind] for kind in KINDS}
    counts = ", ".join(f"{len(found)} {KINDS[kind]}" for kind, found in of_kind.items() if found)
    lines = [f"near-duplicates: {counted(len(groups), 'group')} ({counts})"]
    ordered = [group for found in of_kind.values() for group in found]
    for group in ordered[:MOST_GROUPS]:
        names = [f"{review.images.name(index)} ({review.label(index)})" for review, index in group.members]
        lines.append(f"    {KINDS[group.kind]}: {some_names(names)}")
    if len(ordered) > MOST_GROUPS:
        lines.append(f"    and {counted(len(ordered) - MOST_GROUPS, 'more group')}: --json and --html have all")
    return lines


def _label_lines(review: SetReview) -> list[str]:
    if (labels := review.labels) is None:
        return []
    agreement = f"cross-validated agreement {labels.agreement.share:.0%} (chance {labels.agreement.chance:.0%})"
    if labels.agreement.is_near_chance:
        return [
            f"    labels: {agreement}: too low to tell which labels are wrong, so doubts are withheld; add images, or "
            "try another --backbone"
        ]
    n = len(labels.doubts)
    lines = [
        f"    labels: {agreement}, {counted(n, 'label')} {'is' if n == 1 else 'are'} in doubt"
        + ("; the lower the agreement, the less reliable these flags are" if n else "")
    ]
    return lines + [
        f"    doubt: {review.images.name(one.index)} looks like {labels.classes[one.best]} "
        f"({one.probability_best:.2f}); "
        f"its own class has rank {one.rank} of {one.n_classes} ({one.probability_own:.2f})"
        for one in labels.doubts
    ]


def _size(finding: SetFinding) -> str:
    smallest, largest = min(finding.counts.values()), max(finding.counts.values())
    per_class = f"{smallest} to {largest}" if smallest < largest else f"{largest}"
    classes = counted(len(finding.counts), "class", "classes")
    return f"{classes}, {counted(sum(finding.counts.values()), 'readable image')}, {per_class} per class"


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
