from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.features.cache import FeatureStore
from sotglp.features.view_cache import ViewCache
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import METHODS
from sotglp.methods.registry import build_model
from sotglp.scoring.cross_fit import (
    SHARE_OF_STEPS,
    CrossFit,
    cross_fit,
    fold_checkpoint,
    fold_training,
    folds_of,
    remove_checkpoints,
)
from sotglp.scoring.predict import predict
from sotglp.settings import InferenceConfig, TrainConfig
from sotglp.training.checkpoint import Checkpoint
from sotglp.training.fit import adapt
from support.samples import coloured_image, make_class_folders, tiny_clip

CONFIG = TrainConfig(epochs=2, batch_size=8, learning_rate=0.02, augment=False, shots=4, seed=3)
INFERENCE = InferenceConfig(ood_method="knn")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return ImageSet.from_path(make_class_folders(tmp_path_factory.mktemp("data") / "train", per_class=4))


@pytest.fixture(scope="module")
def model(images: ImageSet) -> SOTGLP:
    """Its classes stand in another order than the sorted one."""
    return SOTGLP(Backbone.from_open_clip(tiny_clip()), images.classes[::-1], n_local_prompts=2, top_k=3)


@pytest.fixture(scope="module")
def crossed(model: SOTGLP, images: ImageSet) -> CrossFit:
    return cross_fit(model, images, CONFIG, INFERENCE, n_folds=3)


def assert_same(one: CrossFit, other: CrossFit) -> None:
    np.testing.assert_array_equal(one.folds, other.folds)
    for name in ("indices", "probabilities", "global_logits", "local_logits", "ood_scores"):
        np.testing.assert_array_equal(getattr(one.predictions, name), getattr(other.predictions, name))
    for ours, theirs in zip(one.models, other.models, strict=True):
        for name, tensor in ours.kept_tensors().items():
            assert torch.equal(tensor, theirs.kept_tensors()[name]), name


def test_folds_are_scikit_learns(crossed: CrossFit, images: ImageSet) -> None:
    parts = StratifiedKFold(3, shuffle=True, random_state=3).split(np.zeros(12), images.targets(images.classes[::-1]))
    for fold, (_, held_out) in enumerate(parts):
        assert np.flatnonzero(crossed.folds == fold).tolist() == held_out.tolist()
    for label in images.classes:
        of_class = np.array(images.labels) == label
        assert set(np.bincount(crossed.folds[of_class], minlength=3)) <= {1, 2}


def test_no_model_judges_images_it_saw(crossed: CrossFit, model: SOTGLP, images: ImageSet, tmp_path: Path) -> None:
    """Each fold's fit and predictions written out; encoded images are in half precision there too."""
    for fold in range(3):
        fitted = adapt(
            model.backbone,
            images.take(np.flatnonzero(crossed.folds != fold)),
            model.config,
            CONFIG.model_copy(update={"shots": None}),
            classes=model.class_names,
            cache_dir=tmp_path,
        )
        assert len(fitted.images) == (crossed.folds != fold).sum()
        assert torch.equal(crossed.models[fold].local_prompts, fitted.model.local_prompts)
        own = np.flatnonzero(crossed.folds == fold)
        predictions = predict(fitted.model, images.take(own), INFERENCE, cache_dir=tmp_path)
        for name in ("probabilities", "global_logits", "local_logits", "ood_scores"):
            np.testing.assert_array_equal(getattr(crossed.predictions, name)[own], getattr(predictions, name))
    assert crossed.predictions.indices.tolist() == list(range(12))
    for fold_model in crossed.models:
        assert (fold_model.class_names, fold_model.config) == (model.class_names, model.config)
        assert fold_model.backbone is model.backbone


def test_same_seed_same_bits_with_a_cache(crossed: CrossFit, model: SOTGLP, images: ImageSet, tmp_path: Path) -> None:
    torch.manual_seed(9)
    assert_same(cross_fit(model, images, CONFIG, INFERENCE, n_folds=3, cache_dir=tmp_path), crossed)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 12
    other = cross_fit(model, images, CONFIG.model_copy(update={"seed": 4}), INFERENCE, n_folds=3)
    assert not np.array_equal(other.folds, crossed.folds)


def test_folds_remember_shots_only_for_scores_that_need_them(
    crossed: CrossFit, model: SOTGLP, images: ImageSet
) -> None:
    assert all(one.shots is not None for one in crossed.models)
    general = cross_fit(model, images, CONFIG, InferenceConfig(ood_method="gl-mcm"), n_folds=3)
    assert all(one.shots is None for one in general.models)
    np.testing.assert_array_equal(general.predictions.probabilities, crossed.predictions.probabilities)


@pytest.mark.parametrize("n_folds", [2, 3, 5])
@pytest.mark.parametrize("warmup", [0, 10])
def test_the_folds_together_take_half_the_steps_of_the_fit(n_folds: int, warmup: int) -> None:
    config = TrainConfig(epochs=400, batch_size=4, learning_rate=0.1, warmup_epochs=warmup)
    shortened = fold_training(config, 120, n_folds)
    steps = n_folds * shortened.n_epochs(0) * shortened.steps_per_epoch(120 - 120 // n_folds)
    assert steps == pytest.approx(SHARE_OF_STEPS * 400 * config.steps_per_epoch(120), rel=0.01)
    sums = [sum(c.rate(e, c.n_epochs(0)) for e in range(c.n_epochs(0))) for c in (config, shortened)]
    assert sums[1] == pytest.approx(sums[0] / 2, rel=0.05)
    assert shortened.warmup_epochs == pytest.approx(warmup * shortened.n_epochs(0) / 400, abs=0.5)


@pytest.mark.parametrize(("epochs", "n_images", "expected"), [(2, 12, 2), (8, 12, 5), (40, 40, 5), (None, 3200, 1)])
def test_a_fold_takes_five_steps_or_those_of_the_fit(epochs: int | None, n_images: int, expected: int) -> None:
    config = TrainConfig(epochs=epochs)
    shortened = fold_training(config, n_images, 5)
    assert shortened.epochs == expected
    assert config.learning_rate <= shortened.learning_rate <= 4 * config.learning_rate


def test_a_fold_that_diverges_is_trained_as_the_fit_was(
    crossed: CrossFit, model: SOTGLP, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(config: TrainConfig, *_: int) -> TrainConfig:
        return config.model_copy(update={"learning_rate": 1e30})

    monkeypatch.setattr("sotglp.scoring.cross_fit.fold_training", diverging)
    assert_same(cross_fit(model, images, CONFIG, INFERENCE, n_folds=3), crossed)
    hopeless = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(SotglpError, match="diverged"):
        cross_fit(model, images, hopeless, INFERENCE, n_folds=3)


class Killed(Exception):
    pass


def test_a_killed_cross_fit_resumes_to_the_same_bits(
    crossed: CrossFit, model: SOTGLP, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "m.checkpoint"
    write, written, deadly = Checkpoint.write, [], ("m.checkpoint.fold1", 1)

    def noted(self: Checkpoint, *state: Any) -> None:
        write(self, *state)
        written.append((self.path.name, len(state[-1])))
        if written[-1] == deadly:
            raise Killed

    monkeypatch.setattr(Checkpoint, "write", noted)
    with pytest.raises(Killed):
        cross_fit(model, images, CONFIG, INFERENCE, n_folds=3, checkpoint=checkpoint)
    assert written == [("m.checkpoint.fold0", 1), ("m.checkpoint.fold0", 2), ("m.checkpoint.fold1", 1)]
    written.clear()
    resumed = cross_fit(model, images, CONFIG, INFERENCE, n_folds=3, checkpoint=checkpoint, resume=True)
    assert_same(resumed, crossed)
    # What was done is not done again.
    assert written == [("m.checkpoint.fold1", 2), ("m.checkpoint.fold2", 1), ("m.checkpoint.fold2", 2)]


def test_the_state_of_a_run_and_its_folds_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    checkpoint = tmp_path / "m.checkpoint"
    other = fold_checkpoint(tmp_path / "n.checkpoint", 0)
    for path in (checkpoint, *(fold_checkpoint(checkpoint, fold) for fold in range(5)), other):
        path.write_text("state")
    remove_checkpoints(checkpoint)
    assert list(tmp_path.iterdir()) == [other]
    remove_checkpoints(checkpoint)


@pytest.mark.parametrize(("counts", "expected"), [((2, 9), 2), ((3, 3), 3), ((5, 6), 5), ((40, 50), 5)])
def test_as_many_folds_as_the_smallest_class_allows(counts: tuple[int, int], expected: int) -> None:
    labels = ["a"] * counts[0] + ["b"] * counts[1]
    picture = coloured_image(np.random.default_rng(0), (0, 0, 0))
    assert folds_of(ImageSet.from_items([picture] * len(labels), labels)) == expected


@pytest.mark.parametrize(
    ("n", "n_folds", "words"),
    [
        (1, None, "into 2 folds.*'b' has 1"),
        (3, 4, "into 4 folds.*'b' has 3"),
        (3, 1, "into 1 folds, since 2 is the least"),
        (3, -1, "into -1 folds"),
    ],
)
def test_too_few_images(
    model: SOTGLP, n: int, n_folds: int | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sotglp.scoring.cross_fit.adapt", None)
    labels = ["a"] * 8 + ["b"] * n
    picture = coloured_image(np.random.default_rng(0), (0, 0, 0))
    with pytest.raises(SotglpError, match=words):
        cross_fit(model, ImageSet.from_items([picture] * len(labels), labels), CONFIG, INFERENCE, n_folds=n_folds)


@pytest.mark.parametrize("method", ["zero-shot", "linear-probe", "tip-adapter", "gda", "proker"])
def test_methods_without_steps_are_judged_too(model: SOTGLP, images: ImageSet, method: str, tmp_path: Path) -> None:
    settings = METHODS[method].config_class(**METHODS[method].settings)
    peer = build_model(model.backbone, images.classes, settings)
    crossed = cross_fit(peer, images, CONFIG, INFERENCE, checkpoint=tmp_path / "m.checkpoint")
    assert (len(crossed.models), set(crossed.folds)) == (4, {0, 1, 2, 3})
    assert crossed.predictions.probabilities.shape == (12, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("on_disk", [False, True])
def test_folds_share_the_views_of_the_fit(
    model: SOTGLP, images: ImageSet, on_disk: bool, sent: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, keys = FeatureStore.read, list[str]()

    def noted(self: FeatureStore, key: str) -> Any:
        keys.append(key)
        return read(self, key)

    monkeypatch.setattr(FeatureStore, "read", noted)
    config = CONFIG.model_copy(update={"augment": True, "views": 2})
    cache = ViewCache(tmp_path if on_disk else None)
    fitted = adapt(model.backbone, images, model.config, config, cache_dir=cache)
    crossed = cross_fit(fitted.model, fitted.images, config, INFERENCE, n_folds=3, cache_dir=cache)
    assert sum(sent) == 3 * len(images)  # two random views and the centre crop
    assert keys == []
    # Another process finds them on the disk.
    if on_disk:
        again = cross_fit(fitted.model, fitted.images, config, INFERENCE, n_folds=3, cache_dir=tmp_path)
        assert sum(sent) == 3 * len(images)
        assert len(set(keys)) == len(keys) <= 3 * len(images)
        assert_same(again, crossed)


def test_the_checkpoint_that_shows_a_run_to_resume_is_removed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "m.checkpoint"
    for path in (checkpoint, fold_checkpoint(checkpoint, 0), fold_checkpoint(checkpoint, 1)):
        path.touch()
    left = []
    unlink = Path.unlink

    def observed(path: Path, **options: Any) -> None:
        unlink(path, **options)
        left.append(checkpoint.exists())

    monkeypatch.setattr(Path, "unlink", observed)
    remove_checkpoints(checkpoint)
    assert list(tmp_path.iterdir()) == []
    assert left == [True] * (len(left) - 1) + [False]
