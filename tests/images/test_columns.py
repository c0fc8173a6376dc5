from __future__ import annotations

import pytest

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.images.columns import Columns


@pytest.mark.parametrize(
    ("header", "positions"),
    [
        (["label", "path", "split"], (1, 0, 2)),
        (["file_name", "text"], (0, None, None)),
        (["Image Path", "Class-Name", "data set"], (0, 1, 2)),
        (["image", "path"], (1, None, None)),
    ],
)
def test_usual_names(header: list[str], positions: tuple[int | None, ...]) -> None:
    assert Columns().positions(header, "t.csv") == positions


def test_named_columns() -> None:
    header = ["path", "label", "species", "photo"]
    assert Columns(path="photo", label="species").positions(header, "t.csv")[:2] == (3, 2)
    assert Columns(path="label").positions(header, "t.csv")[:2] == (1, 2)
    for columns, name in ((Columns(path="photos"), "photos"), (Columns(label="kind"), "kind")):
        with pytest.raises(SotglpError, match=f"t.csv has no column {name}, only: path, label, species, photo"):
            columns.positions(header, "t.csv")


def test_two_columns_of_labels_are_reported() -> None:
    with pytest.warns(SotglpWarning, match="labels in the columns label, class_name, of which label is used"):
        Columns().positions(["path", "class_name", "label"], "t.csv")


@pytest.mark.parametrize(
    ("column", "values", "split", "used"),
    [
        ("split", ["train", "Training", "test"], "train", [0, 1]),
        ("Subset", ["val", "valid", "validation", "dev", "train"], "VAL", [0, 1, 2, 3]),
        ("fold", ["0", "1.0", "1"], "1", [1, 2]),
        ("fold", ["0", "1"], "all", [0, 1]),
        ("is_valid", ["True", "False", "1"], "val", [0, 2]),
        ("is_train", ["True", "False"], "test", [1]),
        ("split", ["train", "train"], None, [0, 1]),
        ("data set", ["train", "test"], "test", [1]),
        # Not splits, but sets of something else.
        ("set", ["a", "b"], None, [0, 1]),
    ],
)
def test_rows_of_a_split(column: str, values: list[str], split: str | None, used: list[int]) -> None:
    rows = Columns(split=split).rows_of_split(column, values, "t.csv")
    assert [i for i, is_used in enumerate(rows) if is_used] == used


@pytest.mark.parametrize("column", ["split", "Subset", "PARTITION", "fold", "is_valid", "set", "phase"])
def test_a_split_must_be_chosen(column: str) -> None:
    values = ["True", "False"] if column == "is_valid" else ["train", "test", ""]
    with pytest.raises(SotglpError, match=f"t.csv has rows of the splits .* in the column {column}; .*--split"):
        Columns().rows_of_split(column, values, "t.csv")
    with pytest.raises(SotglpError, match="no rows of the split holdout, only: "):
        Columns(split="holdout").rows_of_split(column, values, "t.csv")
