from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import open_clip
import pytest
import torch
from PIL import Image

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.demo.task import draw_class_pictures
from sotglp.export import onnx_file as onnx_export
from sotglp.export.onnx_file import TOLERANCE, export_model
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import METHODS
from sotglp.methods.registry import build_model
from sotglp.methods.shot_memory import ShotMemory
from sotglp.methods.zero_shot import ZeroShot
from sotglp.runtime import PortableModel
from sotglp.scoring import ood
from sotglp.scoring.temperature import tempered
from sotglp.settings import SHOT_SCORES, InferenceConfig, OodMethod
from sotglp.transport import traceable as transport_sweeps
from sotglp.transport.plans import patch_mass
from support.calibrations import calibrated
from support.samples import tiny_clip
from support.towers import small_convolutional, small_timm_vit

SHARED = Path(__file__).parents[3] / "shared" / "data" / "caltech101" / "test"
CLASSES = ["red brick", "green leaf", "blue sea"]


def tiny_resnet() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = open_clip.CLIP(
            embed_dim=32,
            vision_cfg={"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
            text_cfg={"width": 32, "heads": 2, "layers": 2},
        )
    return Backbone.from_open_clip(clip)


def convolutional() -> Backbone:
    """A tower whose stride does not divide its images: 5 x 5 patches."""
    return Backbone.from_open_clip(small_convolutional(image_size=130))


def quick_gelu_backbone() -> Backbone:
    clip = tiny_clip()
    quick = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
        text_cfg={"width": 32, "heads": 2, "layers": 2},
        quick_gelu=True,
    )
    quick.load_state_dict(clip.state_dict())
    return Backbone.from_open_clip(quick)


def perturbed(model: AdaptedModel) -> AdaptedModel:
    """A model whose learned parameters differ from their start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.learned:
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def with_shots(model: AdaptedModel) -> AdaptedModel:
    generator = torch.Generator().manual_seed(1)
    features, regions = torch.randn(2, 30, model.backbone.embed_dim, generator=generator)
    model.shots = ShotMemory(
        torch.nn.functional.normalize(features, dim=-1),
        torch.nn.functional.normalize(regions, dim=-1),
        torch.arange(30) % len(model.class_names),
    )
    return model


def pixels(model: AdaptedModel, n_images: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_images, 3, *model.backbone.image_size, generator=generator)


def agree(path: Path, model: AdaptedModel, images: torch.Tensor, method: OodMethod, temperature: float = 1.0) -> None:
    """The file returns what the library's public functions return, to 1e-4."""
    got = PortableModel.load(path).run(images.numpy())
    with torch.no_grad():
        outputs = model(images)
        probabilities = model.probabilities(outputs).numpy()
        scores = ood.score(model, images, method).numpy()
    np.testing.assert_allclose(got[0], tempered(probabilities, temperature), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(got[1], scores, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_array_equal(got[2], probabilities.argmax(axis=1))
    assert len(got) == (3 if outputs.plan is None else 4)
    if outputs.plan is None or outputs.support is None:
        return
    mass = patch_mass(outputs.plan, outputs.support, outputs.patch_logits.shape[1]).numpy()
    for row, label, maps in zip(mass, got[2], got[3], strict=True):
        np.testing.assert_allclose(maps, (row[label] / row[label].sum(axis=0)).T, rtol=0, atol=TOLERANCE)


def built(name: str, backbone: Backbone) -> AdaptedModel:
    method = METHODS[name]
    fields = method.config_class.model_fields
    changes = {name: value for name, value in {"top_k": 5}.items() if name in fields}
    if method.settings.get("top_k", 0) is None:
        del changes["top_k"]
    model = build_model(backbone, CLASSES, method.config_class(**{**method.settings, **changes}))
    if model.needs_shot_features:
        features = torch.randn(9, backbone.embed_dim, generator=torch.Generator().manual_seed(2))
        model.fit_features(features, torch.arange(9) % 3)
    if isinstance(model, SOTGLP) and method.settings.get("residual"):
        features = torch.randn(9, backbone.embed_dim, generator=torch.Generator().manual_seed(2))
        zero_shot = ZeroShot(backbone, CLASSES)
        model.residual = model.new_residual().fit(features, torch.arange(9) % 3, zero_shot)
        model.config = model.config.model_copy(update={"fusion": (0.3, 0.6, 0.2)})
    return perturbed(model)


SCORES: dict[str, OodMethod] = {
    "zero-shot": "mcm",
    "zero-shot-ensemble": "msp",
    "linear-probe": "max-logit",
    "tip-adapter": "energy",
    "tip-adapter-f": "margin",
    "clip-adapter": "entropy",
    "gda": "gen",
    "proker": "ash",
    "pool": "msp",
    "lp++": "react",
    "task-res": "she",
    "clap": "entropy",
    "clip-lora": "mcm",
    "coop": "subspace",
    "locoop": "gl-mcm",
    "plot": "knn",
    "gallop": "l-mcm",
    "sot-glp": "mahalanobis-patches",
    "sot-glp-projection-free": "mahalanobis",
    "sot-glp-gda": "energy",
    "sot-glp-proker": "gl-mcm",
    "sot-glp-pool": "mcm",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_and_score_can_be_exported(name: str, tmp_path: Path) -> None:
    assert set(SCORES.values()) == {*get_args(OodMethod)} - {"vim", "neglabel"}
    score, model = SCORES[name], built(name, Backbone.from_open_clip(tiny_clip()))
    if score in SHOT_SCORES:
        model = with_shots(model)
    done = export_model(tmp_path / "m.onnx", model, inference=InferenceConfig(ood_method=score))
    assert done.n_checked == 8
    assert max(done.differences.values()) <= TOLERANCE
    assert list(done.differences) == ["probabilities", "ood_score", *(["maps"] if hasattr(model, "match") else [])]
    for n_images in (1, 7):
        agree(tmp_path / "m.onnx", model, pixels(model, n_images), score)


@pytest.mark.parametrize("make", [tiny_resnet, quick_gelu_backbone, convolutional])
def test_convolutional_and_quick_gelu_towers(make: Any, tmp_path: Path) -> None:
    backbone = make()
    model = perturbed(SOTGLP(backbone, CLASSES, top_k=4))
    export_model(tmp_path / "m.onnx", model)
    assert PortableModel.load(tmp_path / "m.onnx").record.patch_grid == backbone.patch_grid
    for n_images in (1, 7):
        agree(tmp_path / "m.onnx", model, pixels(model, n_images), "gl-mcm")


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["EVA02-E", "PE-Core", "ViTamin"])
def test_vision_transformers_of_other_kinds(kind: str, tmp_path: Path) -> None:
    model = perturbed(SOTGLP(Backbone.from_open_clip(small_timm_vit(kind)), CLASSES, top_k=4))
    export_model(tmp_path / "m.onnx", model)
    for n_images in (1, 3):
        agree(tmp_path / "m.onnx", model, pixels(model, n_images), "gl-mcm")


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """A hundred photos, or painted pictures where there are none."""
    if SHARED.is_dir():
        files = sorted(SHARED.rglob("*.jpg"))
        return [Image.open(file).convert("RGB") for file in files[:: len(files) // 100][:100]]
    return [Image.fromarray(picture) for picture in draw_class_pictures(5, seed=0)[0].images]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, photos: list[Image.Image]) -> tuple[Path, AdaptedModel]:
    """The packaged model with a calibration, compared on photos."""
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    model = perturbed(SOTGLP(Backbone.load("tiny"), CLASSES))
    done = export_model(
        path, model, calibration=calibrated("gl-mcm"), check=ImageSet.from_items(photos), classes=["a", 7, 12]
    )
    assert done.n_checked == 8 + len(photos)
    assert max(done.differences.values()) <= TOLERANCE
    assert done.same_labels == 1
    assert done.n_bytes == path.stat().st_size
    return path, model


def test_a_hundred_photos_agree(exported: tuple[Path, AdaptedModel], photos: list[Image.Image]) -> None:
    path, model = exported
    images = torch.stack([model.backbone.preprocess(photo) for photo in photos])
    assert len(images) == 100
    agree(path, model, images, "gl-mcm", temperature=1.7)
    predictions = PortableModel.load(path).predict(photos, batch_size=7)
    assert predictions.maps is not None
    assert predictions.maps.shape == (100, 4, 8, 8)
    np.testing.assert_allclose(predictions.maps.sum(axis=(2, 3)), 1, rtol=1e-5)
    with torch.no_grad():
        probabilities = model.predict_proba(images).numpy()
    np.testing.assert_allclose(predictions.probabilities, tempered(probabilities, 1.7), rtol=0, atol=TOLERANCE)


def test_the_record_in_the_file(exported: tuple[Path, AdaptedModel]) -> None:
    path, model = exported
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert [one.name for one in file.graph.input] == ["images"]
    assert [one.name for one in file.graph.output] == ["probabilities", "ood_score", "label_index", "maps"]
    assert [one.key for one in file.metadata_props] == ["sotglp"]
    record = json.loads(file.metadata_props[0].value)
    assert record["classes"] == ["a", 7, 12]
    assert record["preprocessing"] == model.backbone.preprocess_settings
    assert (record["patch_grid"], record["ood_method"], record["temperature"]) == ([8, 8], "gl-mcm", 1.7)
    assert (record["threshold"], record["quantized"], record["format_version"]) == (0.5, False, 1)
    assert record["backbone"]["fingerprint"] == model.backbone.fingerprint
    # No text tower, no token embedding, and no path of whoever exported it.
    visual = sum(value.nbytes for value in model.backbone.clip.visual.state_dict().values())
    assert path.stat().st_size < visual + 600_000
    assert str(Path(onnx_export.__file__).parent).encode() not in path.read_bytes()


def test_int8_is_smaller_and_close(tmp_path: Path) -> None:
    model = perturbed(SOTGLP(Backbone.load("tiny"), CLASSES))
    weights = sum(value.nbytes for value in model.backbone.clip.visual.state_dict().values())
    done = export_model(tmp_path / "int8.onnx", model, int8=True)
    assert done.quantized
    assert done.n_bytes < weights / 2
    assert 0 < done.differences["probabilities"] < 0.05
    portable = PortableModel.load(tmp_path / "int8.onnx")
    assert portable.record.quantized
    with torch.no_grad():
        images = pixels(model, 7)
        np.testing.assert_allclose(portable.run(images.numpy())[0], model.predict_proba(images), rtol=0, atol=0.05)


@pytest.mark.parametrize("make", [tiny_resnet, convolutional])
def test_int8_of_a_convolutional_tower_is_calibrated_on_images(
    make: Any, tmp_path: Path, photos: list[Image.Image]
) -> None:
    model = perturbed(SOTGLP(make(), CLASSES, top_k=4))
    plain = export_model(tmp_path / "m.onnx", model)
    pictures = ImageSet.from_items(photos[:20])
    done = export_model(tmp_path / "int8.onnx", model, int8=True, check=pictures)
    assert done.n_bytes < plain.n_bytes
    assert done.n_checked == len(pictures)
    assert 0 < done.differences["probabilities"] < 0.05
    file = onnx.load(tmp_path / "int8.onnx")
    weights = {one.name: one.data_type for one in file.graph.initializer}
    made_by = {output: node for node in file.graph.node for output in node.output}
    first, *convolutions = [node for node in file.graph.node if node.op_type == "Conv"]
    assert weights[first.input[1]] == onnx.TensorProto.FLOAT
    sources = [made_by[node.input[1]].input[0] for node in convolutions]
    assert {weights[name] for name in sources} == {onnx.TensorProto.INT8}
    assert PortableModel.load(tmp_path / "int8.onnx").record.quantized


def test_models_that_a_graph_cannot_express_are_refused(
    tmp_path: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(model: AdaptedModel, **how: Any) -> str:
        with pytest.raises(SotglpError) as caught:
            export_model(tmp_path / "m.onnx", model, **how)
        assert list(tmp_path.iterdir()) == []
        return str(caught.value)

    relaxed = SOTGLP(tiny_backbone, CLASSES, top_k=4, relaxation=0.5)
    assert "relaxed marginals can't be exported" in refusal(relaxed)
    own = Backbone.from_open_clip(tiny_clip(), lambda image: torch.zeros(3, 32, 32))
    assert "custom preprocessing can't be exported" in refusal(SOTGLP(own, CLASSES, top_k=4))
    model = built("zero-shot", tiny_backbone)
    assert "features the model doesn't store" in refusal(model, inference=InferenceConfig(ood_method="knn"))
    assert "give a folder with --check DIR" in refusal(built("zero-shot", tiny_resnet()), int8=True)
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)
    assert "limited to 2 GiB" in refusal(model)


def test_a_file_that_differs_is_not_written(
    tmp_path: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_sweeps, "MAX_SWEEPS", 1)
    model = perturbed(SOTGLP(tiny_backbone, CLASSES, top_k=4, epsilon=0.01))
    with pytest.raises(SotglpError, match=r"m\.onnx is not written, since its \w+ would differ from the model's by"):
        export_model(tmp_path / "m.onnx", model)
    assert list(tmp_path.iterdir()) == []


def test_the_model_stays_as_it_is_and_files_are_kept(tmp_path: Path, tiny_backbone: Backbone) -> None:
    model = built("zero-shot", tiny_backbone)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    before_export = model.predict_proba(pixels(model, 2))
    how: dict[str, Any] = {"calibration": calibrated("gl-mcm"), "inference": InferenceConfig(ood_method="msp")}
    export_model(tmp_path / "m.onnx", model, **how)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.predict_proba(pixels(model, 2)), before_export)
    first = (tmp_path / "m.onnx").read_bytes()
    with pytest.raises(SotglpError, match="exists"):
        export_model(tmp_path / "m.onnx", model)
    export_model(tmp_path / "m.onnx", model, force=True, **how)
    assert (tmp_path / "m.onnx").read_bytes() == first
    # The threshold is for another score than the one in the file.
    record = PortableModel.load(tmp_path / "m.onnx").record
    assert record.threshold is None
    assert record.calibration is not None
