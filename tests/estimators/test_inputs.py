from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sotglp import Backbone, SotglpError, SotglpWarning
from sotglp.estimators.inputs import labelled, maybe_labelled, unlabelled
from support.estimators import classifier

Paths = tuple[list[str], list[str]]


def test_a_data_frame_is_a_table_of_images(tiny_backbone: Backbone, paths: Paths) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"path": paths[0], "label": paths[1]})
    plain = classifier(tiny_backbone, epochs=1).fit(*paths)
    for X, y in ((frame, None), (frame[["path"]], frame["label"]), (frame, paths[1])):
        fitted = classifier(tiny_backbone, epochs=1).fit(X, y)
        np.testing.assert_array_equal(fitted.predict_proba(frame), plain.predict_proba(paths[0]))
    for X in (frame, frame["path"]):
        assert fitted.score(X, frame["label"]) == plain.score(*paths)


def test_rows_of_several_splits_are_not_fitted_together(paths: Paths) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"path": paths[0], "label": paths[1], "split": ["train", "test"] * 9})
    for y in (None, paths[1]):
        with pytest.raises(SotglpError, match="the splits test, train"):
            labelled(frame, y)
    assert len(labelled(frame[frame["split"] == "train"], None)[0]) == 9
    assert len(unlabelled(frame)) == 18
    # Labels of images to predict are not read.
    frame["label"] = None
    assert unlabelled(frame).labels is None


def test_a_manifest_of_several_splits_is_predicted_whole(class_folders: Path) -> None:
    manifest = class_folders / "all.csv"
    manifest.write_text("path,split,label\nblue sea/0.png,train,\nblue sea/1.png,test,\n")
    assert len(unlabelled(manifest)) == 2
    with pytest.raises(SotglpError, match="the splits test, train"):
        labelled(manifest, None)


def test_a_frame_without_labels(paths: Paths) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"path": paths[0]})
    with pytest.raises(SotglpError, match="the data frame has no labels"):
        labelled(frame, None)
    assert maybe_labelled(frame, None).labels is None


@pytest.mark.parametrize("images", [{"path": ["a.png"]}, {"a.png", "b.png"}, {"a.png": "cat"}])
def test_images_without_an_order_are_refused(images: Any) -> None:
    with pytest.raises(SotglpError, match=r"the images are one (dict|set)"):
        unlabelled(images)


def test_names_of_other_systems_in_lists(class_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(class_folders)
    expected = (Path("blue sea/0.png"), class_folders / "red_brick/1.png", Path("gone.png"))
    names = ["blue sea\\0.png", (class_folders / "red_brick/1.png").as_uri(), "gone.png"]
    assert unlabelled(names).images == expected
    with pytest.raises(SotglpError, match="image 1 is the address https"):
        unlabelled(["blue sea/0.png", "https://example.org/a.png"])


def test_labels_of_missing_values_are_reported(paths: Paths) -> None:
    labels = np.array(["cat", np.nan, None, "dog"]).astype(str)
    with pytest.warns(SotglpWarning, match="2 of 4 labels of y .*'nan', 'None', first in image 1"):
        labelled(paths[0][:4], labels)


def test_the_same_picture_under_two_labels_is_reported(tiny_backbone: Backbone, class_folders: Path) -> None:
    shutil.copy(class_folders / "blue sea" / "3.png", class_folders / "red_brick" / "3.png")
    with pytest.warns(SotglpWarning, match=r"two labels.*3.png .blue sea., .*3.png .red_brick."):
        classifier(tiny_backbone, epochs=1).fit(class_folders)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*two labels")
        shutil.copy(class_folders / "red_brick" / "1.png", class_folders / "red_brick" / "3.png")
        classifier(tiny_backbone, epochs=1).fit(class_folders)
