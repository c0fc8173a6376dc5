"""Which columns and rows of a table are used."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from sotglp.errors import SotglpError, SotglpWarning, some_names

ALL = "all"
"""Choice of all rows, whatever their split."""

# Lower case, with underscores for spaces.
_PATH_NAMES = (
    *("path", "file_name", "filename", "file_path", "filepath", "file", "image_path", "image_file", "image_name"),
    *("image", "img_path", "img", "paths", "filepaths", "filenames", "file_names", "files", "images"),
)
_LABEL_NAMES = ("label", "class", "class_name", "class_label", "labels", "category", "target", "species")
_SPLIT_NAMES = ("split", "subset", "partition", "fold", "data_split", "split_name")
# Such columns may mean something else: they are splits if all their values are.
_POSSIBLE_SPLIT_NAMES = ("set", "data_set", "dataset", "phase", "part", "usage", "stage", "purpose", "mode")
_SPLIT_FLAGS = {
    **dict.fromkeys(("is_valid", "is_val", "is_validation"), ("val", "train")),
    "is_test": ("test", "train"),
    **dict.fromkeys(("is_train", "is_training", "is_training_image"), ("train", "test")),
}
_SYNONYMS = {
    **{"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"},
    "evaluation": "eval",
}
_SPLIT_WORDS = frozenset({"train", "val", "test", "eval", "trainval", "holdout", "unused", ""})
_TRUE, _FALSE = frozenset({"true", "1", "1.0", "yes", "t"}), frozenset({"false", "0", "0.0", "no", "f"})


@dataclass(frozen=True)
class Columns:
    """Choice of the rows and columns of a table.

    ``split`` is the value of a column split, subset, partition or fold in the rows to read; None reads all, and is an
    error if that column has different values; "all" reads them. ``path`` and ``label`` name columns; None looks for
    usual names.
    """

    split: str | None = None
    path: str | None = None
    label: str | None = None

    def wanted(self, header: Sequence[str]) -> list[str]:
        """Return the columns to read; none without a column of paths."""
        found = [self.find(header, which) for which in ("path", "label", "split")]
        return [] if found[0] is None else [header[i] for i in dict.fromkeys(found) if i is not None]

    def positions(
        self, header: Sequence[str], subject: str, *, with_labels: bool = True
    ) -> tuple[int, int | None, int | None]:
        """Return the positions of the columns of paths, labels and splits in a table, called ``subject`` in messages.

        Raise a SotglpError if there is no column of paths, or not the one that is named, or it stands there twice.
        Warn if there are several columns that may be labels.
        """
        path, label, split = (self.find(header, which) for which in ("path", "label", "split"))
        has = some_names(list(header)) or "no columns"
        if path is None:
            raise SotglpError(
                f"{subject} has no column {self.path or 'path'}, only: {has}; a manifest has the columns path and "
                "label, separated by commas in a CSV file, or name others with --path-column and --label-column"
            )
        if self.label is not None and label is None:
            raise SotglpError(f"{subject} has no column {self.label}, only: {has}; give one with --label-column")
        for found in (path, label, split):
            if found is not None and header.count(header[found]) > 1:
                raise SotglpError(f"{subject} has the column {header[found]} twice; rename or remove one")
        others = [name for i, name in enumerate(header) if _plain(name) in _LABEL_NAMES and i != label]
        if not with_labels:
            return path, None, split
        if self.label is None and label is not None and others:
            warnings.warn(
                f"{subject} has labels in the columns {some_names([header[label], *others])}, of which {header[label]} "
                "is used; choose another one with --label-column",
                SotglpWarning,
                stacklevel=4,
            )
        return path, label, split

    def rows_of_split(self, name: str, values: Sequence[str], subject: str) -> list[bool]:
        """Return whether each row is used, by the values of the split column ``name``.

        Raise a SotglpError if there are no rows of the chosen split, or several splits and none is chosen.
        """
        plain = _plain(name)
        splits = [_split(plain, value) for value in values]
        if plain in _POSSIBLE_SPLIT_NAMES and not all(_key(split) in _SPLIT_WORDS for split in splits):
            splits = [""] * len(splits)
        known = {_key(split): split for split in reversed(splits)}
        names = some_names([split or "(empty)" for split in sorted(known.values())])
        if self.split is None:
            if len(known) > 1:
                raise SotglpError(
                    f"{subject} has rows of the splits {names} in the column {name}; choose one with --split, or all, "
                    "or make a table of each (in Python, pass the rows to use as a DataFrame)"
                )
            return [True] * len(splits)
        chosen = _key(self.split)
        if chosen != ALL and chosen not in known:
            raise SotglpError(
                f"{subject} has no rows of the split {self.split}, only: {names}; choose another one or leave --split "
                "out"
            )
        return [chosen in (ALL, _key(split)) for split in splits]

    def check_no_splits(self, subject: str) -> None:
        """Raise a SotglpError if a split is chosen, for a table without such a column."""
        if self.split is not None and _key(self.split) != ALL:
            raise SotglpError(
                f"{subject} has no rows of the split {self.split}, and no column {', '.join(_SPLIT_NAMES[:4])}; leave "
                "--split out, or add the column"
            )

    def find(self, header: Sequence[str], which: str) -> int | None:
        """Return the position of the column of each "path", "label" or "split"; None if there is none."""
        chosen = {"path": self.path, "label": self.label}.get(which)
        if chosen is not None:
            return header.index(chosen) if chosen in header else None
        splits = (*_SPLIT_NAMES, *_SPLIT_FLAGS, *_POSSIBLE_SPLIT_NAMES)
        usual = {"path": _PATH_NAMES, "label": _LABEL_NAMES, "split": splits}[which]
        taken = {self.path, self.label}
        plain = [None if name in taken else _plain(name) for name in header]
        return next((plain.index(name) for name in usual if name in plain), None)


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _split(column: str, value: str) -> str:
    if column in _SPLIT_FLAGS:
        for values, split in zip((_TRUE, _FALSE), _SPLIT_FLAGS[column], strict=True):
            if value.lower() in values:
                return split
    return value


def _key(split: str) -> str:
    lower = split.lower()
    return _SYNONYMS.get(lower, re.sub(r"^(-?\d+)\.0+$", r"\1", lower))
