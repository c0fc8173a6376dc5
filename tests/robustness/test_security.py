"""Files from strangers: each is refused in one sentence, runs nothing, and takes no memory beyond its own size."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.backbone.safe_load import check_weight_file
from sotglp.cli import main
from sotglp.features.cache import FeatureStore
from sotglp.model_file.load import load_model
from sotglp.model_file.record import read_record
from sotglp.model_file.save import save_model
from support.hostile_files import GREEDY, MALFORMED, PICKLES, changed_model, with_record
from support.samples import coloured_image, make_class_folders

Craft = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.load("tiny")


@pytest.fixture(scope="module")
def model(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, SOTGLP(backbone, ["cat", "dog"], n_local_prompts=2, top_k=5))
    return path


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[str, str]:
    """Standard output and error of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["sotglp", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    assert stop.value.code == (2 if printed.err else 0)
    return printed.out, printed.err


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    out, error = run(capsys, monkeypatch, *arguments)
    assert out == ""
    assert re.fullmatch(r"sotglp: error: [^\n]{20,600}\n", error), error
    return error


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("craft", PICKLES, ids=lambda craft: craft.__name__)
def test_pickles_as_weights(tmp_path: Path, craft: Craft, ending: str) -> None:
    weights, marker = tmp_path / f"weights{ending}", tmp_path / "ran"
    craft(weights, marker)
    with pytest.raises(SotglpError, match=r"^the weight file [^\n]{20,600}$|can't be read as a weight file"):
        Backbone.load("tiny", weights)
    assert [path.name for path in tmp_path.iterdir()] == [weights.name]
    assert not (tmp_path.parent / "ran").exists()


@pytest.mark.parametrize("craft", GREEDY, ids=lambda craft: craft.__name__)
def test_weights_that_are_more_than_they_weigh(tmp_path: Path, craft: Craft) -> None:
    weights = tmp_path / "weights.pt"
    craft(weights, tmp_path / "ran")
    with pytest.raises(
        SotglpError, match=r"^the weight file [^\n]{20,600}(save its state_dict as .safetensors|runs no code)$"
    ):
        check_weight_file(weights)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_safetensors_as_weights(tmp_path: Path, name: str) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(MALFORMED[name])
    with pytest.raises(SotglpError, match="can't be read"):
        Backbone.load("tiny", weights)


def test_weights_that_are_not_finite(tmp_path: Path, backbone: Backbone) -> None:
    weights = tmp_path / "weights.safetensors"
    state = {name: value.clone() for name, value in backbone.clip.state_dict().items()}
    state["ln_final.bias"][3] = float("nan")
    safetensors.torch.save_file(state, weights)
    with pytest.raises(SotglpError, match=r"has values in ln_final\.bias that are not finite"):
        Backbone.load("tiny", weights)


@pytest.mark.parametrize("craft", PICKLES, ids=lambda craft: craft.__name__)
def test_pickles_as_model_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, craft: Craft
) -> None:
    marker, path, images = tmp_path / "ran", tmp_path / "m.safetensors", tmp_path / "images"
    craft(path, marker)
    make_class_folders(images, per_class=1)
    for command in (("predict", path, images / "blue sea"), ("evaluate", path, images), ("info", path)):
        assert "can't be read as a model file" in refused(capsys, monkeypatch, *command)
    assert not marker.exists()
    assert {found.name for found in tmp_path.iterdir()} == {"m.safetensors", "images"}


@pytest.mark.parametrize("craft", PICKLES, ids=lambda craft: craft.__name__)
def test_pickles_as_weights_on_the_command_line_and_as_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, craft: Craft
) -> None:
    out, marker, weights = tmp_path / "m.safetensors", tmp_path / "ran", tmp_path / "weights.pt"
    images = make_class_folders(tmp_path / "images", per_class=1)
    fit = ("fit", images, "--out", out, "--backbone", "tiny", "--shots", "1", "--epochs", "1", "--no-cache")
    craft(weights, marker)
    assert "weights.pt" in refused(capsys, monkeypatch, *fit, "--pretrained", weights)
    checkpoint = tmp_path / "m.safetensors.checkpoint"
    craft(checkpoint, marker)
    assert "can't be read as a checkpoint" in refused(capsys, monkeypatch, *fit, "--resume")
    assert not marker.exists()
    assert not out.exists()


@pytest.mark.parametrize("craft", PICKLES, ids=lambda craft: craft.__name__)
def test_pickles_as_cache_entries_are_no_entries(tmp_path: Path, craft: Craft) -> None:
    store, key = FeatureStore(tmp_path / "cache", {"fingerprint": "sha256:0"}), FeatureStore.key("picture", None)
    store.write(key, torch.zeros(3), torch.zeros(2, 4))
    (entry,) = store.root.rglob("*.safetensors")
    craft(entry, tmp_path / "ran")
    assert store.read(key) is None
    assert not entry.exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_safetensors_as_models_and_cache_entries(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(MALFORMED[name])
    for read in (read_record, load_model):
        with pytest.raises(SotglpError, match=r"can't be read as a model file: [^\n]{20,400}$"):
            read(path)
    store, key = FeatureStore(tmp_path / "cache", {}), FeatureStore.key("picture", None)
    store.write(key, torch.zeros(3), torch.zeros(2, 4))
    (entry,) = store.root.rglob("*.safetensors")
    entry.write_bytes(MALFORMED[name])
    assert store.read(key) is None


RECORDS: dict[str, bytes] = {
    "nested 100,000 deep": with_record("[" * 100_000 + "]" * 100_000),
    "a number of a million digits": with_record('{"format_version": ' + "9" * 10**6 + "}"),
    "a list": with_record("[]"),
    "no JSON": with_record("{"),
    "a kind of a million letters": with_record(json.dumps({"kind": "k" * 10**6})),
    "a history of text": with_record(json.dumps({"history": ["x"]})),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_are_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(RECORDS[name])
    with pytest.raises(SotglpError, match=r"^[^\n]{20,600}$"):
        read_record(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_tensors_that_are_not_finite(tmp_path: Path, model: Path, backbone: Backbone, value: float) -> None:
    path = tmp_path / "m.safetensors"
    prompts = safetensors.torch.load_file(model)["local_prompts"]
    prompts[1, 1, 2, 3] = value
    path.write_bytes(changed_model(model, {}, {"local_prompts": prompts}))
    with pytest.raises(SotglpError, match="its local_prompts holds something else than finite numbers"):
        load_model(path, backbone=backbone)


@pytest.mark.parametrize("kind", [torch.complex64, torch.int64, torch.float8_e4m3fn, torch.uint8, torch.bool])
def test_tensors_of_another_type(tmp_path: Path, model: Path, backbone: Backbone, kind: torch.dtype) -> None:
    path = tmp_path / "m.safetensors"
    prompts = safetensors.torch.load_file(model)["global_prompts"]
    path.write_bytes(changed_model(model, {}, {"global_prompts": prompts.to(kind)}))
    with pytest.raises(SotglpError, match=r"its global_prompts (holds something else than|is missing or has another)"):
        load_model(path, backbone=backbone)


@pytest.mark.parametrize(
    ("history", "named"), [([[1]], "history"), ([{"epoch": 1}], "history"), (3, "int"), ([{"epoch": "x"}], "history")]
)
def test_histories_that_are_none(tmp_path: Path, model: Path, history: object, named: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(changed_model(model, {"history": history}))
    with pytest.raises(SotglpError, match=rf"its record is damaged .*{named}"):
        read_record(path)


def test_names_that_a_terminal_would_obey(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, image = tmp_path / "m.safetensors", tmp_path / "a\x1b[8m\n.png"
    names = ["cat\x1b]0;owned\x07", "dog\nsotglp: error: none"]
    save_model(path, SOTGLP(backbone, names, n_local_prompts=2, top_k=5))
    coloured_image(np.random.default_rng(0), (90, 90, 90)).save(image)
    said = run(capsys, monkeypatch, "predict", path, image)[0] + run(capsys, monkeypatch, "info", path)[0]
    said += run(capsys, monkeypatch, "predict", path, tmp_path / "gone\x1b[8m.png")[1]
    for shown in (r"a\x1b[8m\n.png", r"cat\x1b]0;owned\x07", r"dog\nsotglp: error: none", r"gone\x1b[8m.png"):
        assert shown in said
    assert all(line.isprintable() for line in said.split("\n"))
    assert json.loads(run(capsys, monkeypatch, "info", path, "--json", "-")[0])["classes"] == names
