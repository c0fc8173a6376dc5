"""What ``sotglp data check`` finds about labelled images: each set by itself, and sets against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sotglp.backbone import Backbone
from sotglp.images.check import SetFinding
from sotglp.images.image_set import ImageSet
from sotglp.images.near_duplicates import find_near_duplicates
from sotglp.scoring.label_doubts import Agreement, Doubt, find_doubts, out_of_fold, unit_features
from sotglp.settings import InferenceConfig


@dataclass(frozen=True)
class LabelReview:
    """Agreement of labels with out-of-fold predictions, and doubts by index in the set; none near chance."""

    agreement: Agreement
    doubts: tuple[Doubt, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class SetReview:
    """Findings about one set: a folder of class folders or a manifest, called ``name``.

    ``labels`` is None without a backbone or two classes; ``warnings`` are those of reading the set, such as about files
    that were left out.
    """

    name: str
    images: ImageSet
    finding: SetFinding
    labels: LabelReview | None
    warnings: tuple[str, ...]

    def label(self, index: int) -> str:
        """Return the label of an image."""
        return (self.images.labels or ())[index]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of JSON."""
        labels, name = self.labels, self.images.name
        result = {
            "path": self.name,
            "is_valid": self.finding.is_valid,
            "counts": self.finding.counts,
            "unreadable": [{"path": name(i), "reason": error.reason} for i, error in self.finding.unreadable.items()],
            "copies": [
                {"paths": [name(index) for index in group.indices], "labels": list(group.labels)}
                for group in self.finding.copies
            ],
            "singleton_classes": self.finding.singleton_classes,
            "agreement": labels and labels.agreement.share,
            "chance": labels and labels.agreement.chance,
            "doubts_withheld": labels and labels.agreement.is_near_chance,
            "doubts": labels
            and [
                {
                    "path": name(doubt.index),
                    "label": self.label(doubt.index),
                    "looks_like": labels.classes[doubt.best],
                    "rank": doubt.rank,
                    "n_classes": doubt.n_classes,
                    "probability": doubt.probability_own,
                    "probability_of_best": doubt.probability_best,
                }
                for doubt in labels.doubts
            ],
            "dark": [name(index) for index in self.finding.dark],
            "warnings": list(self.warnings),
        }
        if self.finding.uniform:
            result["nearly_uniform"] = [name(index) for index in self.finding.uniform]
        return result


@dataclass(frozen=True)
class DuplicateGroup:
    """Near-duplicates: two or more images, each with its set, and the most bits of 256 that differ in a linked pair."""

    members: tuple[tuple[SetReview, int], ...]
    most_bits: int

    @property
    def kind(self) -> str:
        """``across_sets``, else ``across_classes``, else ``within_class``."""
        if len({id(review) for review, _ in self.members}) > 1:
            return "across_sets"
        return "across_classes" if len({review.label(i) for review, i in self.members}) > 1 else "within_class"

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of JSON."""
        images = [
            {"set": review.name, "path": review.images.name(i), "label": review.label(i)} for review, i in self.members
        ]
        return {"kind": self.kind, "bits": self.most_bits, "images": images}


def review_labels(
    images: ImageSet, finding: SetFinding, backbone: Backbone, cache_dir: Path | None = None
) -> LabelReview | None:
    """Look for labels that are probably wrong among classes of at least two readable images; None without two such."""
    labels = images.labels or ()
    chosen = [i for i, label in enumerate(labels) if i not in finding.unreadable and finding.counts[label] > 1]
    names = tuple(sorted({labels[i] for i in chosen}))
    if len(names) < 2:
        return None
    subset = images.take(chosen)
    targets = subset.targets(names)
    features = unit_features(backbone, subset, InferenceConfig(show_progress=True), cache_dir)
    probabilities = out_of_fold(features, targets)
    agreement = Agreement.of(probabilities, targets)
    doubts = [] if agreement.is_near_chance else find_doubts(probabilities, targets)
    return LabelReview(agreement, tuple(replace(doubt, index=chosen[doubt.index]) for doubt in doubts), names)


def find_duplicate_groups(reviews: Sequence[SetReview]) -> list[DuplicateGroup]:
    """Find near-duplicates within and across sets; copies, byte for byte, within one set are left to its finding."""
    members = [(review, index) for review in reviews for index in review.finding.hashes]
    copy_of = {(id(review), i): k for review in reviews for k, c in enumerate(review.finding.copies) for i in c.indices}
    groups = []
    for found in find_near_duplicates([review.finding.hashes[index] for review, index in members]):
        of_group = tuple(members[i] for i in found.indices)
        contents = {(id(review), copy_of.get((id(review), index), -1 - index)) for review, index in of_group}
        if len(contents) > 1:
            groups.append(DuplicateGroup(of_group, found.most_bits))
    return groups
