from __future__ import annotations

import copy
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sotglp import Backbone, MethodClassifier, SOTGLPClassifier, SotglpError, SotglpWarning
from sotglp.errors import UnreadableImageError
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import METHODS, find_method
from sotglp.model_file.load import load_model
from sotglp.model_file.save import save_model
from sotglp.settings import Preset, TrainConfig
from sotglp.training.class_changes import STEPS_ALONE, renamed, with_class, without_class
from sotglp.training.fit import adapt
from support.painted import save_all
from support.samples import COLOURS, coloured_image, preprocessed, tiny_clip

OLD = sorted(COLOURS)
NEW = "grey cloud"
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 6, "learning_rate": 0.1, "augment": False, "shots": None}
CONFIG = TrainConfig(**QUICK)

OWN_PROMPTS = ("sot-glp", "sot-glp-projection-free")
KEYS = ("tip-adapter", "tip-adapter-f")
FUSED = ("sot-glp-gda", "sot-glp-proker", "sot-glp-pool")
AT_ONCE = ("linear-probe", "gda", "proker", "pool", "lp++", "clap", *FUSED)
WITHOUT_TEXT = ("linear-probe", "clap")
NAME_IS_ENOUGH = [name for name in METHODS if name not in (*OWN_PROMPTS, *KEYS, *AT_ONCE, "task-res")]


def pictures(colour: tuple[int, int, int], n: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [coloured_image(rng, colour) for _ in range(n)]


def old_images(n: int = 4) -> ImageSet:
    images = [image for seed, name in enumerate(OLD) for image in pictures(COLOURS[name], n, seed)]
    return ImageSet.from_items(images, [name for name in OLD for _ in range(n)])


def some_old_images() -> ImageSet:
    """Images of all old classes but the last."""
    return old_images().take(range(8))


def new_images(n: int = 6) -> ImageSet:
    return ImageSet.from_items(pictures((128, 128, 128), n, seed=50))


@pytest.fixture(scope="module")
def tiny_backbone() -> Backbone:
    return Backbone.from_open_clip(tiny_clip())


@cache
def fitted(backbone: Backbone, method: str, **changes: Any) -> AdaptedModel:
    """A fitted model, which the tests share: none of them changes it."""
    settings, config = find_method(method).settings_on(Preset(), {**QUICK, **changes})
    return adapt(backbone, old_images(), settings, config).model


def kept(model: AdaptedModel) -> dict[str, Tensor]:
    return {name: getattr(model, name).detach().clone() for name in model.kept if getattr(model, name) is not None}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def looked_at(tiny_backbone: Backbone) -> Tensor:
    return preprocessed(tiny_backbone, ImageSet.from_items([*old_images(2).images, *new_images(2).images]))


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize(
    ("method", "changes"),
    [*((name, {}) for name in OWN_PROMPTS), *((name, {"local_contexts": "class"}) for name in ("plot", "gallop"))],
)
def test_only_new_rows_are_learned(tiny_backbone: Backbone, method: str, changes: dict[str, Any], others: bool) -> None:
    model = fitted(tiny_backbone, method, remember=False, **changes)
    before = kept(model)
    config = CONFIG.model_copy(update={"weight_decay": 0.5})
    with pytest.warns(SotglpWarning, match="stores no shots"):
        grown = with_class(model, NEW, new_images(), config, others=some_old_images() if others else None)
    assert type(grown) is type(model)
    assert grown.class_names == (*OLD, NEW)
    assert grown.config == model.config
    assert not grown.training
    after = kept(grown)
    rows = after.pop("local_prompts")
    assert torch.equal(rows[:-1], before["local_prompts"])
    start = before.pop("local_prompts").mean(dim=0)
    assert (rows[-1] - start).abs().max() > 1e-3
    assert_same(after, before)
    assert_same(kept(model), {**before, "local_prompts": rows[:-1]})  # the model given is left as it is
    assert [name for name, own in grown.named_parameters() if own.requires_grad] == [
        name for name, own in model.named_parameters() if own.requires_grad
    ]


def test_the_new_row_takes_plain_sgd_steps(tiny_backbone: Backbone) -> None:
    model = fitted(tiny_backbone, "sot-glp", learn_projection=False, remember=False)
    some = old_images(1).take([0, 1])
    images = ImageSet.from_items([*new_images(3).images, *some.images])
    targets = torch.tensor([3, 3, 3, 0, 1])
    config = CONFIG.model_copy(update={"epochs": 2, "momentum": 0.5, "weight_decay": 0.1})
    with pytest.warns(SotglpWarning, match="only the prompts of 'grey cloud' were learned"):
        grown = with_class(model, NEW, new_images(3), config, others=some)

    oracle = type(model)(tiny_backbone, [*OLD, NEW], **model.config.model_dump())
    with torch.no_grad():
        oracle.global_prompts.copy_(model.global_prompts)
        oracle.local_prompts.copy_(torch.cat([model.local_prompts, model.local_prompts.mean(dim=0, keepdim=True)]))
        features, patches = tiny_backbone.encode_image(preprocessed(tiny_backbone, images))
        patches = tiny_backbone.project_patches(patches).half()
    velocity = torch.zeros_like(oracle.local_prompts[-1])
    for rate in (0.1, 0.05):
        outputs = oracle.compare(EncodedImages(features, patches, projected=True), oracle.encode_text())
        loss = F.cross_entropy(tiny_backbone.logit_scale * outputs.local_logits, targets)
        (slope,) = torch.autograd.grad(loss, oracle.local_prompts)
        with torch.no_grad():
            velocity = 0.5 * velocity + slope[-1] + 0.1 * oracle.local_prompts[-1]
            oracle.local_prompts[-1] -= rate * velocity
    torch.testing.assert_close(grown.local_prompts, oracle.local_prompts, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", OWN_PROMPTS)
def test_the_new_class_is_learned_and_old_images_stay_with_theirs(tiny_backbone: Backbone, method: str) -> None:
    model = fitted(tiny_backbone, method, epochs=30)
    grown = with_class(model, NEW, new_images(), CONFIG, epochs=30)
    test = preprocessed(tiny_backbone, ImageSet.from_items([*old_images(6).images, *new_images(8).images[6:]]))
    said = grown.predict_proba(test).argmax(dim=1).tolist()
    expected = [0] * 6 + [1] * 6 + [2] * 6 + [3] * 2
    assert np.mean(np.array(said) == expected) > 0.8
    assert 3 in said


@pytest.mark.parametrize("method", METHODS)
def test_what_was_added_keeps_old_cosines_and_can_be_removed_to_the_same_bits(
    tiny_backbone: Backbone, looked_at: Tensor, tmp_path: Path, method: str
) -> None:
    model = fitted(tiny_backbone, method, remember=False)
    if method in AT_ONCE:
        with pytest.raises(SotglpError, match="is fitted on the images of all classes at once"):
            with_class(model, NEW, new_images(), CONFIG)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SotglpWarning)  # of methods with own prompts
        grown = with_class(model, NEW, new_images(), CONFIG)
    with torch.no_grad():
        before, after = model(looked_at), grown(looked_at)
    for one, other in zip(before[:3], after[:3], strict=True):  # logits
        # Products of another shape round otherwise, in the last bits.
        torch.testing.assert_close(other[..., :3], one, rtol=0, atol=2e-6)
        assert other.shape[-1] == 4
    save_model(tmp_path / "grown.safetensors", grown)
    loaded = load_model(tmp_path / "grown.safetensors", backbone=tiny_backbone).model
    assert torch.equal(loaded.predict_proba(looked_at), grown.predict_proba(looked_at))
    back = without_class(loaded, NEW)
    assert back.class_names == model.class_names
    assert_same(kept(back), kept(model))
    assert torch.equal(back.predict_proba(looked_at), model.predict_proba(looked_at))


@pytest.mark.parametrize("method", NAME_IS_ENOUGH)
def test_where_all_is_shared_the_name_is_enough(tiny_backbone: Backbone, looked_at: Tensor, method: str) -> None:
    model = fitted(tiny_backbone, method, remember=False)
    unreadable = ImageSet.from_items([Path("/nowhere.png")])
    grown = with_class(model, NEW, unreadable, CONFIG)
    assert_same(kept(grown), kept(model))
    assert grown.shots is None  # the model remembers none
    expected = model.for_new_classes([*OLD, NEW])
    # That of zero-shot CLIP is what its peers without anything learned fall back to.
    assert torch.equal(grown.predict_proba(looked_at), expected.predict_proba(looked_at))


@pytest.mark.parametrize("method", KEYS)
def test_new_keys_stand_behind_the_old_ones(tiny_backbone: Backbone, method: str) -> None:
    model = fitted(tiny_backbone, method)
    grown = with_class(model, NEW, new_images(), CONFIG.model_copy(update={"shots": 5}), others=old_images())
    assert torch.equal(grown.keys[:12], model.keys)
    assert grown.key_classes.tolist() == [*model.key_classes.tolist(), *[3] * 5]
    own = F.normalize(tiny_backbone.encode_image(preprocessed(tiny_backbone, new_images()))[0], dim=-1)
    assert ((grown.keys[12:] @ own.T) > 1 - 1e-5).sum(dim=1).tolist() == [1] * 5
    assert grown.keys.requires_grad == (method == "tip-adapter-f")


@pytest.mark.parametrize("method", METHODS)
def test_other_classes_keep_what_was_learned(tiny_backbone: Backbone, looked_at: Tensor, method: str) -> None:
    model = fitted(tiny_backbone, method)
    for removed, rest in enumerate(([1, 2], [0, 2], [0, 1])):
        left = without_class(model, OLD[removed])
        assert left.class_names == tuple(OLD[index] for index in rest)
        with torch.no_grad():
            before, after = model(looked_at), left(looked_at)
        for one, other in zip(before[:3], after[:3], strict=True):  # logits
            torch.testing.assert_close(other, one[..., rest], rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_new_name_changes_text_alone(tiny_backbone: Backbone, looked_at: Tensor, method: str) -> None:
    model = fitted(tiny_backbone, method)
    changed = renamed(model, OLD[1], "wide ocean")
    assert changed.class_names == (OLD[0], "wide ocean", OLD[2])
    assert_same(kept(changed), kept(model))
    with torch.no_grad():
        before, after = model(looked_at).global_logits, changed(looked_at).global_logits
    torch.testing.assert_close(after[:, [0, 2]], before[:, [0, 2]], rtol=0, atol=2e-6)
    if method in WITHOUT_TEXT:
        assert torch.equal(after, before)
    else:
        assert (after[:, 1] - before[:, 1]).abs().max() > 1e-4
    # Back again, and to a name that reads alike.
    for same in (renamed(changed, "wide ocean", OLD[1]), renamed(model, "red_brick", "Red brick")):
        assert torch.equal(same.predict_proba(looked_at), model.predict_proba(looked_at))


def test_how_long_it_learns(tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    from sotglp.training import class_changes

    seen: list[tuple[int, int | None]] = []

    def spy(model: AdaptedModel, images: ImageSet, config: TrainConfig, **_: Any) -> None:
        seen.append((len(images), config.epochs))

    monkeypatch.setattr(class_changes, "train", spy)
    model = fitted(tiny_backbone, "sot-glp", remember=False)
    few = CONFIG.model_copy(update={"shots": 12})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SotglpWarning)  # of few images, and of what may be missed
        with_class(model, NEW, new_images(5), few)
        with_class(model, NEW, new_images(20), few)
        with_class(model, NEW, new_images(20), few, others=some_old_images())
        with_class(model, NEW, new_images(20), CONFIG, epochs=7)
    assert seen == [(5, STEPS_ALONE), (12, -(-STEPS_ALONE // 2)), (20, 3), (20, 7)]


@pytest.mark.parametrize("method", ["sot-glp", "linear-probe", "sot-glp-gda"])
def test_stored_shots_stand_in_for_the_images_of_other_classes(tiny_backbone: Backbone, method: str) -> None:
    model = fitted(tiny_backbone, method, epochs=2)
    config = CONFIG.model_copy(update={"epochs": 2, "batch_size": 18})
    stored = with_class(model, NEW, new_images(), config)
    shown = with_class(model, NEW, new_images(), config, others=old_images())
    assert stored.class_names == (*OLD, NEW)
    test = preprocessed(tiny_backbone, ImageSet.from_items([*old_images(2).images, *new_images(2).images]))
    torch.testing.assert_close(stored.predict_proba(test), shown.predict_proba(test), atol=0.03, rtol=0)
    assert stored.shots.classes.tolist() == shown.shots.classes.tolist()
    torch.testing.assert_close(stored.shots.features, shown.shots.features, atol=1e-5, rtol=0)
    # Once more, on shots of the new class too.
    again = with_class(stored, "fog", new_images(3), config)
    assert np.bincount(again.shots.classes).tolist() == [4, 4, 4, 6, 3]


@pytest.mark.filterwarnings("ignore:only the prompts")
def test_images_that_cannot_be_read(tiny_backbone: Backbone, tmp_path: Path) -> None:
    files = save_all(list(new_images(3).images), tmp_path, "new")
    files[1].write_bytes(b"no image")
    model, images = fitted(tiny_backbone, "sot-glp", remember=False), ImageSet.from_items(files)
    with pytest.raises(UnreadableImageError, match=r"new_2\.png"):
        with_class(model, NEW, images, CONFIG)
    unreadable: list[UnreadableImageError] = []
    grown = with_class(model, NEW, images, CONFIG, unreadable=unreadable)
    assert [error.source for error in unreadable] == [str(files[1])]
    same = with_class(model, NEW, ImageSet.from_items([files[0], files[2]]), CONFIG)
    assert torch.equal(grown.local_prompts, same.local_prompts)


def test_what_cannot_be_done(tiny_backbone: Backbone) -> None:
    model = fitted(tiny_backbone, "sot-glp")
    before = kept(model)
    images = new_images(2)
    for name, message in (
        ("red_brick", "the model already has a class 'red_brick'"),
        ("Red  brick", "give the same prompt"),
        (" ", "has no text"),
    ):
        with pytest.raises(SotglpError, match=message):
            with_class(model, name, images, CONFIG)
        with pytest.raises(SotglpError, match=message):
            renamed(model, "blue sea", name)
    strange = ImageSet.from_items(images.images, ["blue sea", "mud"])
    for others, message in ((strange, "not among the 3 classes: mud"), (images, "no labels")):
        with pytest.raises(SotglpError, match=message):
            with_class(model, NEW, images, CONFIG, others=others)
    for change in (lambda: without_class(model, "blue see"), lambda: renamed(model, "blue see", "lake")):
        with pytest.raises(SotglpError, match=r"there is no class 'blue see' \(did you mean blue sea\?\)"):
            change()
    two = without_class(model, "blue sea")
    with pytest.raises(SotglpError, match="'green leaf' can't be removed, since a classifier needs two"):
        without_class(two, "green leaf")
    assert_same(kept(model), before)


@pytest.fixture
def classifier(tiny_backbone: Backbone) -> SOTGLPClassifier:
    return SOTGLPClassifier(tiny_backbone, **QUICK).fit(list(old_images().images), old_images().labels)


def test_classes_of_a_classifier_change(tiny_backbone: Backbone, classifier: SOTGLPClassifier, tmp_path: Path) -> None:
    images = list(old_images().images)
    assert classifier.add_class(NEW, list(new_images().images), (images, old_images().labels)) is classifier
    assert classifier.classes_.tolist() == [*OLD, NEW]
    assert classifier.predict_proba(images).shape == (12, 4)
    classifier.save(tmp_path / "m.safetensors")
    loaded = SOTGLPClassifier.load(tmp_path / "m.safetensors", backbone=tiny_backbone)
    assert loaded.classes_.tolist() == [*OLD, NEW]
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # there is no calibration to lose
        loaded.rename_class(NEW, "fog").rename_class("fog", NEW).remove_class(NEW)
    assert loaded.classes_.tolist() == OLD
    expected = classifier.remove_class(NEW).predict_proba(images)
    np.testing.assert_array_equal(loaded.predict_proba(images), expected)
    assert loaded.predict(images).tolist() == [OLD[place] for place in expected.argmax(axis=1)]


def test_old_images_may_be_a_folder(classifier: SOTGLPClassifier, class_folders: Path, tmp_path: Path) -> None:
    copied = copy.deepcopy(classifier)
    files = sorted(class_folders.glob("*/*.png"))
    images = list(new_images().images)
    by_pair = classifier.add_class(NEW, images, (files, [file.parent.name for file in files]), epochs=2)
    by_folder = copied.add_class(NEW, images, class_folders, epochs=2)
    assert torch.equal(by_pair.model_.local_prompts, by_folder.model_.local_prompts)


def test_labels_keep_their_kind(tiny_backbone: Backbone) -> None:
    numbers = [{"red_brick": 1, "green leaf": 2, "blue sea": 30}[name] for name in old_images().labels or ()]
    classifier = MethodClassifier("coop", tiny_backbone, settings={"epochs": 1, "augment": False}, shots=None)
    classifier.fit(list(old_images().images), numbers)
    images = list(new_images().images)
    for change in (lambda: classifier.add_class("4", images), lambda: classifier.rename_class(1, "one")):
        with pytest.raises(SotglpError, match="has another type than the others, such as 1"):
            change()
    classifier.add_class(4, images).remove_class(2).rename_class(30, 3)
    assert classifier.classes_.tolist() == [1, 3, 4]
    assert classifier.model_.class_names == ("1", "3", "4")
    assert classifier.classes_.dtype.kind == "i"
    with pytest.raises(SotglpError, match="epochs = 0 can't be used"):
        classifier.add_class(5, images, epochs=0)


@pytest.mark.parametrize("method", ["coop", "tip-adapter"])
def test_the_memory_of_shots_follows_the_classes(tiny_backbone: Backbone, method: str) -> None:
    model = fitted(tiny_backbone, method)
    grown = with_class(model, NEW, new_images(), CONFIG)
    assert torch.equal(grown.shots.features[:12], model.shots.features)
    assert torch.equal(grown.shots.regions[:12], model.shots.regions)
    assert len(grown.shots.patches.rows) == 18
    assert grown.shots.classes.tolist() == [*model.shots.classes.tolist(), *[3] * 6]
    expected = F.normalize(tiny_backbone.encode_image(preprocessed(tiny_backbone, new_images()))[0], dim=-1)
    torch.testing.assert_close(grown.shots.features[12:], expected, rtol=1e-5, atol=1e-6)
    smaller = without_class(grown, OLD[0])
    assert smaller.shots.classes.tolist() == [0] * 4 + [1] * 4 + [2] * 6
    assert torch.equal(smaller.shots.features, grown.shots.features[4:])
