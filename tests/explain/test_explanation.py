from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sotglp import SOTGLP, Backbone, SOTGLPClassifier, SotglpError
from sotglp.explain.explanation import explain, explain_each
from sotglp.explain.patch_boxes import patch_boxes
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import METHODS
from sotglp.methods.registry import build_model
from sotglp.model_file.load import load_model
from sotglp.scoring import ood
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.rejection import Rejection
from sotglp.settings import InferenceConfig, Preset
from support.samples import Reference, coloured_image, tiny_clip
from support.towers import small_convolutional

NAMES = ["red_brick", "green leaf", "blue sea"]


@pytest.fixture(scope="module")
def model() -> SOTGLP:
    return SOTGLP(Backbone.from_open_clip(tiny_clip()), NAMES, top_k=5).eval()


def picture(width: int = 50, height: int = 40, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_masses_are_the_published_plan_s(reference: Reference) -> None:
    images, plan, support = (reference.numbers[name] for name in ("image", "plan_converged", "support_index"))
    names = reference.model.class_names
    explained = list(explain_each(reference.model, ImageSet.from_items(images), names))
    grid = reference.backbone.patch_grid
    assert len(explained) == len(images)
    for b, explanation in enumerate(explained):
        for c, one in enumerate(explanation.classes):
            expected = np.zeros((plan.shape[-1], grid[0] * grid[1]))
            for k, patch in enumerate(support[b, :, c].tolist()):
                expected[:, patch] += plan[b, c, k].numpy()
            expected /= expected.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(one.mass.reshape(len(expected), -1), expected, atol=2e-5)
            assert one.label == names[c]
            assert one.global_score == pytest.approx(float(reference.numbers["global_logits"][b, c].mean()), abs=1e-5)
            assert one.local_score == pytest.approx(float(reference.numbers["local_score_converged"][b, c]), abs=1e-5)


def test_probability_and_score_are_those_of_the_model(model: SOTGLP) -> None:
    image = picture()
    pixels = model.backbone.preprocess(image)[None]
    explanation = explain(model, image, NAMES, InferenceConfig(ood_method="energy", temperature=2.0))
    for one, probability in zip(explanation.classes, model.predict_proba(pixels)[0].tolist(), strict=True):
        assert one.probability == pytest.approx(probability, abs=1e-6)
    np.testing.assert_allclose(explanation.probabilities, model.predict_proba(pixels)[0], atol=1e-6)
    assert explanation.ood_score == pytest.approx(float(ood.score(model, pixels, "energy", 2.0)), rel=1e-6)
    assert (explanation.ood_method, explanation.ood_temperature) == ("energy", 2.0)
    assert explanation.threshold is None
    assert explanation.is_unknown is None


def test_the_most_probable_classes_or_those_asked_for_are_explained(model: SOTGLP) -> None:
    probabilities = [one.probability for one in explain(model, picture(), 3).classes]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(explain(model, picture(), 7).classes) == 3
    for one in (np.int64(1), np.uint8(1), np.int32(1)):
        assert explain(model, picture(), one).classes[0].label == explain(model, picture()).classes[0].label
    assert explain(model, picture()).classes[0].label == explain(model, picture(), 3).classes[0].label
    for classes in (["blue sea", "red_brick"], np.array(["blue sea", "red_brick"]), "blue sea"):
        found = [one.label for one in explain(model, picture(), classes).classes]
        assert found == (["blue sea"] if isinstance(classes, str) else ["blue sea", "red_brick"])


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 300), st.integers(20, 300))
def test_boxes_tile_the_part_that_the_model_saw(model: SOTGLP, width: int, height: int) -> None:
    boxes = patch_boxes(model.backbone, width, height)
    assert boxes.shape == (4, 4, 4)
    np.testing.assert_allclose(boxes[:, 1:, 0], boxes[:, :-1, 2], atol=1e-9)
    np.testing.assert_allclose(boxes[1:, :, 1], boxes[:-1, :, 3], atol=1e-9)
    shorter = min(width, height)
    np.testing.assert_allclose(boxes[0, -1, 2] - boxes[0, 0, 0], shorter, rtol=0.06)
    np.testing.assert_allclose(boxes[-1, 0, 3] - boxes[0, 0, 1], shorter, rtol=0.06)
    assert boxes[..., :2].min() >= -0.5
    assert boxes[..., 2].max() <= width + 0.5
    assert boxes[..., 3].max() <= height + 0.5


@pytest.mark.parametrize(("width", "height"), [(96, 32), (32, 96), (200, 131), (64, 64), (33, 40)])
def test_a_patch_lies_where_changing_the_picture_changes_its_pixels(model: SOTGLP, width: int, height: int) -> None:
    backbone = model.backbone
    base = Image.new("RGB", (width, height), "black")
    boxes = patch_boxes(backbone, width, height)
    for row, column in [(0, 0), (1, 2), (3, 3), (2, 0)]:
        left, top, right, bottom = boxes[row, column].round().astype(int)
        marked = base.copy()
        marked.paste("white", (left, top, right, bottom))
        changed = (backbone.preprocess(marked) - backbone.preprocess(base)).abs().sum(dim=0)
        of_patches = changed.unfold(0, 8, 8).unfold(1, 8, 8).sum(dim=(2, 3))
        assert divmod(int(of_patches.argmax()), 4) == (row, column)
        assert float(of_patches[row, column]) > 0.7 * float(changed.sum())


def test_patches_of_a_tower_whose_stride_does_not_divide_the_image() -> None:
    model = SOTGLP(Backbone.from_open_clip(small_convolutional(image_size=130)), NAMES, top_k=5).eval()
    boxes = patch_boxes(model.backbone, 130, 130)
    np.testing.assert_allclose(boxes[0, 0], [0, 0, 26, 26])
    np.testing.assert_allclose(boxes[4, 4], [104, 104, 130, 130])
    explanation = explain(model, picture(200, 150))
    assert explanation.classes[0].mass.shape == (4, 5, 5)


@pytest.mark.parametrize("mode", ["longest", "squash"])
def test_other_ways_of_resizing_are_undone_too(mode: str) -> None:
    clip = tiny_clip()
    clip.visual.preprocess_cfg = {"resize_mode": mode}
    backbone = Backbone.from_open_clip(clip)
    boxes = patch_boxes(backbone, 100, 50)
    if mode == "squash":
        np.testing.assert_allclose(boxes[0, 0], [0, 0, 25, 12.5])
        np.testing.assert_allclose(boxes[3, 3], [75, 37.5, 100, 50])
    else:
        np.testing.assert_allclose(boxes[0, 0], [0, -25, 25, 0])
        np.testing.assert_allclose(boxes[3, 3], [75, 50, 100, 75])
    explanation = explain(SOTGLP(backbone, NAMES, top_k=3), picture(100, 50))
    assert explanation.seen == (0, 0, 100, 50)


def test_only_the_support_is_listed_and_most_mass_comes_first(model: SOTGLP) -> None:
    explanation = explain(model, picture(), 2)
    record = explanation.to_dict()
    assert json.loads(json.dumps(record)) == record
    for told, one in zip(record["classes"], explanation.classes, strict=True):
        assert len(told["patches"]) == int(one.support.sum()) == 5
        masses = [sum(patch["mass"]) for patch in told["patches"]]
        assert masses == pytest.approx(sorted(masses, reverse=True), abs=1e-6)
        assert np.sum([patch["mass"] for patch in told["patches"]], axis=0) == pytest.approx(np.ones(4), abs=1e-5)
        for patch in told["patches"]:
            assert patch["box"] == explanation.boxes[patch["row"], patch["column"]].tolist()


def test_a_photo_may_be_turned_or_a_tensor(model: SOTGLP, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(60, 40).save(tmp_path / "turned.jpg", exif=exif)
    explanation = explain(model, tmp_path / "turned.jpg")
    assert explanation.image.size == (40, 60)
    assert explanation.name == str(tmp_path / "turned.jpg")
    pixels = torch.tensor(np.asarray(picture())).permute(2, 0, 1)
    found, expected = explain(model, pixels).to_dict(), explain(model, picture()).to_dict()
    assert found | {"path": ""} == expected | {"path": ""}


def test_the_picture_is_what_the_model_was_shown(model: SOTGLP) -> None:
    """Of a preprocessed image, and with a preprocessing of one's own."""
    small, preprocess = picture(32, 32), model.backbone.preprocess
    explanation = explain(model, preprocess(small))
    np.testing.assert_array_equal(np.asarray(explanation.image), np.asarray(small))
    np.testing.assert_allclose(explanation.boxes[1, 2], [16, 8, 24, 16])
    left_half = Backbone.from_open_clip(
        tiny_clip(), lambda image: preprocess(image.crop((0, 0, image.width // 2, image.height)))
    )
    explanation = explain(SOTGLP(left_half, NAMES, top_k=5), picture(64, 32))
    np.testing.assert_array_equal(np.asarray(explanation.image), np.asarray(picture(64, 32).crop((0, 0, 32, 32))))
    assert explanation.boxes[-1, -1].tolist() == [24, 24, 32, 32]


def test_calibration_tells_what_is_unknown(model: SOTGLP) -> None:
    plain = explain(model, picture())
    for threshold, unknown in [(plain.ood_score + 1e-3, True), (plain.ood_score - 1e-3, False)]:
        rejection = Rejection(threshold, 0.95, 10, 0.9, (0.7, 0.99))
        calibration = Calibration("gl-mcm", 1.0, rejection, temperature=3.0)
        explanation = explain(model, picture(), 1, InferenceConfig(), calibration)
        assert explanation.is_unknown is unknown
        assert explanation.threshold == threshold
        assert explanation.classes[0].probability < plain.classes[0].probability
        other = explain(model, picture(), 1, InferenceConfig(ood_method="msp"), calibration)
        assert other.threshold is None


@pytest.mark.parametrize("name", list(METHODS))
def test_methods_without_a_plan_say_so_and_the_others_explain(name: str) -> None:
    backbone = Backbone.from_open_clip(tiny_clip())
    config, _ = METHODS[name].settings_on(Preset().changed({"top_k": 5}), {})
    method_model = build_model(backbone, NAMES, config)
    images = [picture(seed=seed) for seed in range(3)]
    pixels = torch.stack([backbone.preprocess(image) for image in images])
    method_model.fit_features(backbone.encode_image(pixels)[0], torch.arange(3))
    if method_model(pixels).plan is None:
        with pytest.raises(SotglpError, match="no transport plan"):
            explain(method_model, images[0])
        return
    for one in explain(method_model, images[0], 3).classes:
        assert one.mass.sum(axis=(1, 2)) == pytest.approx(np.ones(one.n_prompts), abs=1e-5)


@pytest.mark.parametrize(
    ("image", "classes", "words"),
    [
        (picture(), 0, "ask for 1 or more"),
        (picture(), ["red brik"], "red_brick"),
        (picture(), [], "name one or more"),
        (__file__, 1, "test_explanation"),
    ],
)
def test_what_can_not_be_explained_is_refused(model: SOTGLP, image: object, classes: object, words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        explain(model, image, classes)


def test_the_classifier_explains_with_its_calibration(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [coloured_image(rng, colour) for colour in [(200, 60, 50), (60, 180, 70)] for _ in range(4)]
    labels = np.repeat([3, 7], 4)
    classifier = SOTGLPClassifier(Backbone.load("tiny"), epochs=1, augment=False, shots=None).fit(images, labels)
    assert classifier.explain(images[0]).threshold is None
    held_out = [coloured_image(rng, (130, 120, 60)) for _ in images]
    classifier.calibrate(held_out, y=labels, method="energy")
    explanation = classifier.explain(images[0], [7, 3])
    assert [one.label for one in explanation.classes] == ["7", "3"]
    assert explanation.ood_score == pytest.approx(float(classifier.ood_score(images[:1], "energy")[0]), rel=1e-6)
    assert explanation.is_unknown == bool(classifier.is_ood(images[:1])[0])
    expected = classifier.predict_proba(images[:1])[0, ::-1].tolist()
    assert [one.probability for one in explanation.classes] == pytest.approx(expected, rel=1e-5)
    classifier.save(tmp_path / "m.safetensors")
    model, _, calibration = load_model(tmp_path / "m.safetensors")
    again = explain(model, images[0], ["7", "3"], InferenceConfig(ood_method="energy"), calibration)
    assert again.to_dict() == explanation.to_dict()
