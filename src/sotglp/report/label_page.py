"""The findings of ``sotglp data check`` as one HTML file with thumbnails."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sotglp.errors import UnreadableImageError
from sotglp.files.versions import installed_versions
from sotglp.images.decode import open_image
from sotglp.report.pictures import Thumbnail
from sotglp.report.template import render_page
from sotglp.scoring.set_review import DuplicateGroup, SetReview

MAX_DOUBTS = 60
MAX_GROUPS = 30
"""Groups of near-duplicates of each kind that are shown."""

MAX_MEMBERS = 6
MAX_ODD = 24
MAX_CLASSES = 200

CONTENTS = (
    ("summary", "Summary"),
    ("layout", "Classes and splits"),
    ("doubts", "Doubtful labels"),
    ("duplicates", "Copies and near-duplicates"),
    ("odd", "Dark or uniform images"),
    ("left-out", "Files left out"),
    ("correct", "Correct the labels"),
)
KINDS = {
    "across_sets": "In several sets",
    "across_classes": "In several classes",
    "within_class": "Within a class",
}
HOW = {
    "across_sets": "A test image that was seen in training makes the accuracy look too high: keep it in one set.",
    "across_classes": "At most one of the labels is right, unless the pictures show both classes.",
    "within_class": "Copies count twice in training, and frames of one video say less than they seem to.",
}


@dataclass(frozen=True)
class LabelPageOrigin:
    """The command that makes a page, its folder or table, the backbone that checked labels, and the date."""

    command: str
    source: str
    backbone: str | None
    made_on: str


@dataclass(frozen=True)
class _Picture:
    """An image of a set: its name and label, and its thumbnail, None if it can't be read any more."""

    name: str
    label: str
    thumbnail: Thumbnail | None

    @classmethod
    def of(cls, review: SetReview, index: int) -> _Picture:
        source, thumbnail = review.images.images[index], None
        with suppress(UnreadableImageError):  # it was there a moment ago
            thumbnail = Thumbnail.of(open_image(source, review.images.ranges))  # type: ignore[arg-type]
        return cls(review.images.name(index), review.label(index), thumbnail)


def render_label_page(reviews: Sequence[SetReview], groups: Sequence[DuplicateGroup], origin: LabelPageOrigin) -> bytes:
    """Render findings as an HTML page in UTF-8; equal arguments give equal bytes."""
    copies = [(review, group) for review in reviews for group in review.finding.copies]
    content = {
        "contents": CONTENTS,
        "made_on": origin.made_on,
        "version": installed_versions()["sotglp"],
        "origin": origin,
        "quoted_source": shlex.quote(origin.source),
        "reviews": reviews,
        "n_images": sum(sum(review.finding.counts.values()) for review in reviews),
        "classes": _class_rows(reviews),
        "labels": [(review, review.labels, _doubts(review)) for review in reviews if review.labels],
        "is_judged": any(not review.labels.agreement.is_near_chance for review in reviews if review.labels),
        "n_doubts": sum(len(review.labels.doubts) for review in reviews if review.labels),
        "n_unreadable": sum(len(review.finding.unreadable) for review in reviews),
        "n_groups": Counter(group.kind for group in groups),
        "copies": [
            (group.labels, [_Picture.of(review, i) for i in group.indices[:MAX_MEMBERS]], len(group.indices))
            for review, group in copies[:MAX_GROUPS]
        ],
        "n_copies": len(copies),
        "duplicates": [(KINDS[kind], HOW[kind], *_shown(kind, groups)) for kind in KINDS],
        "odd": [
            (what, [_Picture.of(review, i) for review, i in found[:MAX_ODD]], len(found))
            for what, found in _odd(reviews).items()
        ],
        "unreadable": [
            (review.images.name(i), error.reason)
            for review in reviews
            for i, error in review.finding.unreadable.items()
        ],
        "warnings": list(dict.fromkeys(text for review in reviews for text in review.warnings)),
        "singletons": {review.name: review.finding.singleton_classes for review in reviews},
    }
    return render_page("labels.html.jinja", content)


def _class_rows(reviews: Sequence[SetReview]) -> list[tuple[str, list[int]]]:
    """Return each class with its readable images in each set."""
    names = sorted({name for review in reviews for name in review.finding.counts})
    return [(name, [review.finding.counts.get(name, 0) for review in reviews]) for name in names[:MAX_CLASSES]]


def _doubts(review: SetReview) -> list[dict[str, Any]]:
    if review.labels is None:
        return []
    return [
        {"picture": _Picture.of(review, doubt.index), "doubt": doubt, "likely": review.labels.classes[doubt.best]}
        for doubt in review.labels.doubts[:MAX_DOUBTS]
    ]


def _shown(kind: str, groups: Sequence[DuplicateGroup]) -> tuple[list[tuple[list[_Picture], int]], int]:
    """Return the pictures and sizes of the groups of a kind that are shown, and the number of all."""
    found = [group for group in groups if group.kind == kind]
    return [
        ([_Picture.of(*one) for one in group.members[:MAX_MEMBERS]], len(group.members)) for group in found[:MAX_GROUPS]
    ], len(found)


def _odd(reviews: Sequence[SetReview]) -> dict[str, list[tuple[SetReview, int]]]:
    return {
        "nearly uniform": [(review, index) for review in reviews for index in review.finding.uniform],
        "almost black": [(review, index) for review in reviews for index in review.finding.dark],
    }
