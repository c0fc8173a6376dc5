"""Files of predictions as pandas and Hugging Face's datasets read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sotglp.console.prediction_files import COLUMNS, json_lines, write_parquet

pandas = pytest.importorskip("pandas")


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """Three predictions of a calibrated model with sets; the last file's name is not UTF-8."""
    rows = []
    for name, label, is_unknown, score in (
        ("a.png", 3, False, 1.5),
        ("b.png", "unknown", True, float("nan")),
        ("c\udce9.png", 4, False, 1.25),
    ):
        Image.new("RGB", (8, 6), "red").save(tmp_path / name)
        rows.append(
            {
                "path": str(tmp_path / name),
                "label": label,
                "most_probable": 4 if label == 4 else 3,
                "probability": 0.75,
                "ood_score": score,
                "is_unknown": is_unknown,
                "probabilities": {"3": 0.75, "bell pepper": 0.25},
                "set": [] if is_unknown else [label],
            }
        )
    return rows


def write(rows: list[dict[str, Any]], kind: str, folder: Path) -> Path:
    path = folder / f"predictions.{kind}"
    if kind == "jsonl":
        path.write_bytes(json_lines(rows))
    else:
        write_parquet(path, rows, force=False)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_pandas_has_one_row_a_prediction(rows: list[dict[str, Any]], kind: str, tmp_path: Path) -> None:
    path = write(rows, kind, tmp_path)
    # Else pandas guesses: labels that are digits would become numbers.
    frame = pandas.read_json(path, lines=True, dtype=False) if kind == "jsonl" else pandas.read_parquet(path)
    assert list(frame.columns) == [*COLUMNS, "set"]
    assert frame["label"].tolist() == ["3", "unknown", "4"]
    assert frame["ood_score"].isna().tolist() == [False, True, False]
    assert frame[~frame["is_unknown"]].groupby("label").size().to_dict() == {"3": 1, "4": 1}
    assert frame["probabilities"][0]["bell pepper"] == 0.25
    assert [list(one) for one in frame["set"]] == [["3"], [], ["4"]]


def hugging_face_datasets() -> Any:
    # The folder tests/datasets is importable by the same name, but has no such module.
    pytest.importorskip("datasets.load", reason="Hugging Face's datasets is not installed")
    import datasets

    return datasets


@pytest.mark.parametrize(("builder", "kind"), [("json", "jsonl"), ("parquet", "parquet")])
def test_datasets_shows_the_pictures(rows: list[dict[str, Any]], builder: str, kind: str, tmp_path: Path) -> None:
    datasets = hugging_face_datasets()
    path = write(rows[:2], kind, tmp_path)
    loaded = datasets.load_dataset(builder, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == [*COLUMNS, "set"]
    assert loaded["label"][:] == ["3", "unknown"]
    assert loaded[1]["ood_score"] is None
    assert loaded[0]["probabilities"] == {"3": 0.75, "bell pepper": 0.25}
    pictures = loaded.cast_column("path", datasets.Image())
    assert pictures[0]["path"].size == (8, 6)


def test_datasets_reads_names_that_are_not_utf8(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    datasets = hugging_face_datasets()
    path = write(rows, "jsonl", tmp_path)
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["path"][2].endswith("c\\udce9.png")
