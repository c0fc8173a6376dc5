from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from sotglp import SotglpError, SotglpWarning
from sotglp.backbone.embedded import EMBEDDED
from sotglp.backbone_defaults import (
    CLIP,
    DECIDED,
    HUB_FILES,
    HUB_REPOSITORY,
    PHOTO,
    backbones_with_defaults,
    choose_backbone,
    crossed_ood_method,
    default_method,
    default_ood_method,
    preset_for,
    training_defaults,
)
from sotglp.methods.method import METHODS
from sotglp.settings import Preset, TrainConfig, load_preset
from support.hub_cache import cached_file

ROW: dict[str, Any] = {"epochs": 60, "learning_rate": 0.5, "augment": False, "ood_method": "knn"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hugging Face Hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that come with a backbone `known`, and with no other."""
    monkeypatch.setattr("sotglp.backbone_defaults.packaged_names", lambda folder: ["known"])
    monkeypatch.setattr("sotglp.backbone_defaults.read_packaged", lambda folder, kind, name: dict(ROW))


@pytest.mark.parametrize("file", HUB_FILES)
def test_auto_is_clip_where_open_clip_finds_its_weights(hub: Path, file: str) -> None:
    cached = cached_file(hub, HUB_REPOSITORY, file)
    trained_with = open_clip.get_pretrained_cfg(CLIP, "openai")
    assert open_clip.download_pretrained(trained_with, cache_dir=str(hub)) == str(cached)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_backbone("auto", "auto") == CLIP


def test_auto_looks_for_the_files_of_open_clip() -> None:
    assert open_clip.get_pretrained_cfg(CLIP, "openai")["hf_hub"].rstrip("/") == HUB_REPOSITORY
    assert set(HUB_FILES) == {HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME}


@pytest.mark.parametrize(
    ("repository", "file"),
    [
        ("timm/vit_base_patch32_clip_224.openai", HF_SAFE_WEIGHTS_NAME),
        (HUB_REPOSITORY, "config.json"),
        (HUB_REPOSITORY, f"{HF_SAFE_WEIGHTS_NAME}.incomplete"),
    ],
)
def test_auto_is_photo_without_these_weights_and_says_so(hub: Path, repository: str, file: str) -> None:
    with pytest.warns(SotglpWarning, match=f"--backbone {CLIP} .*MB") as caught:
        assert choose_backbone("auto", "auto") == PHOTO
    assert len(caught) == 1
    cached_file(hub, repository, file)
    with pytest.warns(SotglpWarning):
        assert choose_backbone("AUTO", "Auto") == PHOTO


def test_one_of_several_processes_speaks(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_backbone("auto", "auto") == PHOTO


@pytest.mark.parametrize("pretrained", ["openai", "none", None, Path("weights.pt")], ids=str)
def test_weights_need_an_architecture(hub: Path, pretrained: str | Path | None) -> None:
    with pytest.raises(SotglpError, match=f"{pretrained}.* --backbone {CLIP}"):
        choose_backbone("auto", pretrained)


@pytest.mark.parametrize("pretrained", ["auto", "openai", None])
def test_other_names_stay(hub: Path, pretrained: str | None) -> None:
    assert choose_backbone("RN50", pretrained) == "RN50"


def test_the_choice_loads_no_torch() -> None:
    code = (
        "import sys; from sotglp.backbone_defaults import choose_backbone, training_defaults\n"
        "choose_backbone('auto', 'auto'), training_defaults('photo'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


def test_rows_are_of_embedded_models_and_hold_training_settings() -> None:
    names = backbones_with_defaults()
    assert PHOTO in names
    for name in names:
        assert training_defaults(name).keys() <= set(DECIDED)
    assert set(names) <= {*EMBEDDED, PHOTO}
    assert training_defaults(CLIP) == {}


@pytest.mark.parametrize("values", [{"learning_rate": -1}, {"shots": 3}, {"ood_method": "best"}], ids=str)
def test_a_row_is_checked(monkeypatch: pytest.MonkeyPatch, row: None, values: dict[str, Any]) -> None:
    monkeypatch.setitem(ROW, *values.popitem())
    with pytest.raises(SotglpError):
        training_defaults("known")


def test_a_score_that_needs_shots_is_the_default_only_with_them(row: None) -> None:
    assert default_ood_method("known", has_shots=True) == "knn"
    assert default_ood_method("known", has_shots=False) == default_ood_method("other", has_shots=True) == "gl-mcm"
    assert "ood_method" not in training_defaults("known")


def test_the_method_of_a_backbone_is_for_folders_and_presets_are_as_published() -> None:
    assert default_method(PHOTO) == "sot-glp-gda"
    assert default_method(PHOTO, "dtd") == default_method(CLIP) == default_method("tiny") == "sot-glp"
    assert {default_method(name) for name in backbones_with_defaults()} <= set(METHODS)


def test_a_mahalanobis_score_is_calibrated_by_cross_fitting_from_16_shots_on(
    monkeypatch: pytest.MonkeyPatch, row: None
) -> None:
    monkeypatch.setitem(ROW, "ood_method", "mahalanobis")
    assert crossed_ood_method("known", has_shots=True, smallest=16) == "mahalanobis"
    assert crossed_ood_method("known", has_shots=True, smallest=15) == "gl-mcm"


def test_the_score_of_the_photo_model_is_calibrated_from_3_shots_on() -> None:
    assert crossed_ood_method(PHOTO, has_shots=True, smallest=3) == default_ood_method(PHOTO, has_shots=True)
    assert crossed_ood_method(PHOTO, has_shots=True, smallest=2) == "gl-mcm"
    assert crossed_ood_method("timm:resnet18", has_shots=True, smallest=2) == "knn"


def test_the_score_of_a_backbone_without_text_compares_images_with_shots() -> None:
    assert default_ood_method("timm:resnet18", has_shots=True) == "knn"
    assert default_ood_method("timm:resnet18", has_shots=False) == "gl-mcm"


@pytest.mark.usefixtures("row")
def test_a_backbone_decides_what_a_preset_does_not_name(tmp_path: Path) -> None:
    assert preset_for("other", Preset()) == Preset()
    assert preset_for("known", load_preset("folder")).training == TrainConfig(**training_defaults("known"))
    (tmp_path / "mine.yaml").write_text("training: {epochs: null, learning_rate: 0.1}")
    mine = preset_for("known", load_preset(str(tmp_path / "mine.yaml")))
    assert mine.training == TrainConfig(epochs=None, learning_rate=0.1, augment=False)
    assert mine.changed({"augment": True}).training.augment


@pytest.mark.usefixtures("row")
def test_published_presets_stay_as_published() -> None:
    for name in ("dtd", "oxford_pets", "imagenet"):
        assert preset_for("known", load_preset(name)) == load_preset(name)
