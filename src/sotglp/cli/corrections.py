"""Tables of corrections: what ``sotglp data check`` suggests, and what ``sotglp data apply`` did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sotglp.console.output import csv_table
from sotglp.console.table import counted
from sotglp.console.text import as_utf8
from sotglp.errors import some_names
from sotglp.files.atomic import write_file
from sotglp.images.corrections import COLUMNS, Applied, Correction, apply_corrections, read_corrections, relative_name

if TYPE_CHECKING:
    from sotglp.scoring.set_review import DuplicateGroup, SetReview

Found: TypeAlias = "tuple[SetReview, int, str, str, str]"
"""Set and index of an image, the suggested action, the likely label, and the reason."""


def write_suggestions(
    root: Path, reviews: Sequence[SetReview], groups: Sequence[DuplicateGroup], table: Path, *, force: bool
) -> int:
    """Write a table with a row for each image with a finding, and return the number of rows.

    Only unreadable images and copies, byte for byte, of an image in the same class get an action, ``remove``: whether
    another finding is a mistake is for people to decide.
    """
    rows: dict[str, Correction] = {}
    for review, index, action, new_label, reason in _found(reviews, groups):
        path = review.images.images[index]
        assert isinstance(path, Path)
        name = relative_name(path, root)
        old = rows.get(name, Correction(name, review.label(index), ""))
        reasons = f"{old.reason}; {reason}" if old.reason else reason
        rows[name] = Correction(name, old.label, old.action or action, old.new_label or new_label, reasons)
    cells = [[getattr(row, column) for column in COLUMNS] for row in rows.values()]
    content = as_utf8(csv_table(COLUMNS, cells))
    write_file(table, lambda beside: beside.write_bytes(content), force=force)
    return len(rows)


def apply_table(root: Path, table: Path, out: Path) -> tuple[list[str], dict[str, Any]]:
    """Carry out a table of corrections on a copy; return lines for people and the JSON."""
    done = apply_corrections(root, read_corrections(table), out)
    lines = [f"{out}: {counted(done.n_copied, 'file')} copied from {root}, which is unchanged"]
    lines += [f"    relabelled: {old} is now {new}" for old, new in done.moved.items()]
    lines += [f"    removed: {name}" for name in done.removed]
    if done.new_classes:
        lines.append(f"    warning: new class folders, not in {root}: {some_names(done.new_classes)}")
    if done.emptied:
        lines.append(f"    warning: class folders without images now: {some_names(done.emptied)}")
    if done.skipped:
        lines.append(
            f"    warning: not copied, as they are no files or folders seen before: {some_names(done.skipped)}"
        )
    if done.n_undecided:
        lines.append(f"    {counted(done.n_undecided, 'row')} without an action changed nothing")
    return lines, _applied(done, root, out)


def _applied(done: Applied, root: Path, out: Path) -> dict[str, Any]:
    return {
        "path": str(root),
        "out": str(out),
        "n_copied": done.n_copied,
        "relabelled": [{"path": old, "new_path": new} for old, new in done.moved.items()],
        "removed": list(done.removed),
        "n_undecided": done.n_undecided,
        "new_classes": list(done.new_classes),
        "emptied_classes": list(done.emptied),
        "skipped": list(done.skipped),
    }


def _found(reviews: Sequence[SetReview], groups: Sequence[DuplicateGroup]) -> Iterator[Found]:
    for review in reviews:
        for index, error in review.finding.unreadable.items():
            yield review, index, "remove", "", f"unreadable: {error.reason}"
        for group in review.finding.copies:
            first = review.images.name(group.indices[0])
            is_safe = len(group.labels) == 1
            for index in group.indices[is_safe:]:
                what = f"copy of {first}" if is_safe else f"the same file is in {', '.join(group.labels)}"
                yield review, index, "remove" if is_safe else "", "", what
        if review.labels:
            for doubt in review.labels.doubts:
                likely = review.labels.classes[doubt.best]
                shares = f"{doubt.probability_best:.2f}, {review.label(doubt.index)} {doubt.probability_own:.2f}"
                yield review, doubt.index, "", likely, f"looks like {likely} ({shares})"
    for near in groups:
        for review, index in near.members:
            others = [other.images.name(i) for other, i in near.members if other is not review or i != index]
            yield review, index, "", "", f"near-duplicate of {some_names(others)}"
    for review in reviews:
        for indices, what in ((review.finding.uniform, "nearly uniform"), (review.finding.dark, "almost black")):
            for index in indices:
                yield review, index, "", "", what
