from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.model_file.load import load_model
from sotglp.model_file.record import read_record
from sotglp.model_file.save import save_model
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.rejection import Rejection
from support.model_files import rewrite, with_entries
from support.samples import tiny_clip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "good"
    rejection = Rejection(0.5, 0.9, 3, 0.75, (0.4, 1.0))
    model = SOTGLP(Backbone.from_open_clip(tiny_clip()), ["cat", "dog"], top_k=5)
    save_model(path, model, calibration=Calibration("knn", 1.0, rejection, 1.5, np.full(3, 0.5, np.float32)))
    return path


CALIBRATION = {
    "calibration": ["yes", [1, 2]],
    "calibration.ood_method": ["oracle"],
    "calibration.ood_temperature": [float("nan"), 1e-40],
    "calibration.temperature": [0, float("inf")],
    "calibration.rejection": [None],
    "calibration.rejection.threshold": [float("-inf"), "high", float("nan")],
    "calibration.rejection.tpr": [1.5],
    "calibration.rejection.expected_tpr": [95],
    "calibration.rejection.interval": [[0.5], [0.5, 1.5]],
    "calibration.rejection.n": [0],
    "calibration.n_folds": [10**12, -1, 2.5],
    "calibration.more": [1],
}
BACKBONE = {
    "backbone.name": [3],
    "backbone.seed": ["five", 10**30, -(2**63) - 1],
    "backbone.image_size": [[32]],
    "backbone.fingerprint": [None],
    "backbone.quick_gelu": ["perhaps"],
    "backbone.patch_attention": ["key"],
    "backbone.preprocess": ["bicubic", {"mean": [0.5, 0.5, 0.5]}],
    "backbone.preprocess.mean": [[0.5, 0.5], [0.5, 1e300, 0.5]],
    "backbone.preprocess.std": [[0.5, 0.0, 0.5]],
    "backbone.preprocess.interpolation": ["lanczos"],
    "backbone.preprocess.resize_mode": [None],
    "backbone.preprocess.crop": [0.9],
}
LABELS = [
    [None],
    [float("nan"), 1.0],
    [1.5, 2.0],
    ["cat", "cat"],
    ["1", 1],
    ["caf\u00e9", "cafe\u0301"],
    ["\ud800x", "dog"],
    ["\u200b", "dog"],
    ["cat\u200d", "dog"],
    ["c\ufeffat", "cat"],
    ["", "dog"],
]
OTHERS = {
    "model.top_k": [-1],
    "classes": LABELS,
    "format_version": [2.5, 2.0, -1, 0, True, "2"],
    "history": [[{"loss": 1}], [{"epoch": 1, "loss": float("inf"), "accuracy": 0}]],
    "kind": ["tip-adapter"],
    "versions": [{"torch": "\udcff"}],
}
DAMAGED = [
    (entry, value) for entries in (CALIBRATION, BACKBONE, OTHERS) for entry in entries for value in entries[entry]
]


@pytest.mark.parametrize(("entry", "value"), DAMAGED, ids=str)
def test_a_damaged_entry_is_one_sentence(good: Path, tmp_path: Path, entry: str, value: Any) -> None:
    *way, last = entry.split(".")

    def damage(record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        for step in way:
            record = record[step]
        record[last] = value

    named = r"\(" + entry.replace(".", r"\.") if entry.startswith("backbone") else ""
    with pytest.raises(
        SotglpError, match=rf"^[^\n]*bad can't be read as a model file: its record is damaged {named}[^\n]*$"
    ):
        read_record(rewrite(good, tmp_path / "bad", damage))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"kind": "vit-adapter"}, "kind 'vit-adapter', which this sotglp doesn.t support"),
        ({"kind": ["sot-glp"]}, "holds a model of kind .'sot-glp'."),
        ({"format_version": 4}, "format 4, but this sotglp reads up to 3: update"),
        ({"backbone": None}, "record is damaged"),
    ],
    ids=str,
)
def test_a_record_of_another_version_is_refused(good: Path, tmp_path: Path, entries: Any, words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        read_record(with_entries(good, tmp_path / "bad", **entries))


def test_files_of_another_kind_are_refused(good: Path, tmp_path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "foreign")
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-10])
    (tmp_path / "noise").write_bytes(b"\x80\x04 pickled, perhaps")
    (tmp_path / "huge").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    safetensors.torch.save_file({}, tmp_path / "nested", {"sotglp": "[" * 100_000})
    absent, damaged = "there is no model file", "damaged or something else"
    expected = {"absent": absent, "": absent, "foreign": "no model file of sotglp"}
    for name, words in (expected | dict.fromkeys(["cut", "noise", "huge", "nested"], damaged)).items():
        with pytest.raises(SotglpError, match=words):
            read_record(tmp_path / name)


def test_names_with_joiners_and_all_scripts_are_kept(good: Path, tmp_path: Path) -> None:
    names = [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f469\u200d\U0001f52c",
        "\u0e19\u0e49\u0e33",
        "\u5b66\u6821",
    ]
    assert read_record(with_entries(good, tmp_path / "scripts", classes=names)).classes == names


def test_names_of_classes_are_stored_beside_their_labels(tmp_path: Path) -> None:
    model = SOTGLP(Backbone.from_open_clip(tiny_clip()), ["cat", "dog"], top_k=5)
    save_model(tmp_path / "named", model, classes=[0, 1])
    record = read_record(tmp_path / "named")
    assert (record.classes, record.class_names) == ([0, 1], ["cat", "dog"])
    assert load_model(tmp_path / "named", backbone=model.backbone).model.class_names == ("cat", "dog")
    for names in (["cat"], ["cat", "cat"], ["cat", "dog\u200b"], None):
        with pytest.raises(SotglpError, match="record is damaged"):
            read_record(with_entries(tmp_path / "named", tmp_path / "bad", names=names))


def test_number_labels_are_parsed_from_names(good: Path, tmp_path: Path) -> None:
    assert read_record(good).label_of("7") == "7"
    numbers = read_record(with_entries(good, tmp_path / "numbers", classes=[3, 7]))
    assert numbers.label_of("7") == 7
    with pytest.raises(SotglpError, match="give a whole number"):
        numbers.label_of("cat")
