from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.errors import UnreadableImageError
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.configs import TipAdapterConfig
from sotglp.methods.method import METHODS
from sotglp.settings import ModelConfig, Preset, TrainConfig
from sotglp.training.batches import epoch_batches
from sotglp.training.checkpoint import Checkpoint, run_identity
from sotglp.training.fit import Fitted, adapt, train
from support.samples import COLOURS, coloured_image, preprocessed, tiny_clip

QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 4, "learning_rate": 0.02, "shots": None}


def learned(model: SOTGLP) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("backbone.")}


def run(backbone: Backbone, images: ImageSet, model: dict[str, Any] | None = None, **config: Any) -> Any:
    return adapt(backbone, images, ModelConfig(**(model or {})), TrainConfig(**{**QUICK, **config}))


def assert_same(one: SOTGLP, other: SOTGLP, exactly: bool = True) -> None:
    for name, value in learned(one).items():
        if exactly:
            assert torch.equal(value, learned(other)[name]), name
        else:
            torch.testing.assert_close(value, learned(other)[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("source", [{"augment": False}, {"views": 2}, {"views": 0}], ids=str)
def test_same_seed_same_result_bit_for_bit(tiny_backbone: Backbone, images: ImageSet, source: dict[str, Any]) -> None:
    torch.manual_seed(0)
    first = run(tiny_backbone, images, **source)
    torch.manual_seed(1)
    second = run(tiny_backbone, images, **source)
    assert first.history == second.history
    assert_same(first.model, second.model)
    other = run(tiny_backbone, images, seed=2, **source)
    assert not torch.equal(other.model.local_prompts, first.model.local_prompts)


def test_a_warm_up_precedes_the_cosine(tiny_backbone: Backbone, images: ImageSet) -> None:
    changes = {"epochs": 4, "warmup_epochs": 1, "learning_rate": 0.02, "shots": None}
    history = adapt(tiny_backbone, images, ModelConfig(), TrainConfig(**changes)).history
    # CoOp's log: the constant rate, then the cosine of four epochs from its start.
    expected = [1e-5, 0.02, 0.01 * (1 + math.sqrt(0.5)), 0.01]
    assert [epoch["learning_rate"] for epoch in history] == pytest.approx(expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_loop_is_the_published_rule(tiny_backbone: Backbone, images: ImageSet, optimizer: Any) -> None:
    """Epochs written out with torch alone, on centre crops and without prompt dropout; AdamW as in arXiv 1711.05101.

    Adam adds the weight decay to the gradient.
    """
    sgd, n_epochs = optimizer == "sgd", 2 if optimizer == "sgd" else 3
    same = {"augment": False, "prompt_dropout": 0.0, "batch_size": 8, "weight_decay": 0.01 if sgd else 0.1}
    config = TrainConfig(**{**QUICK, **same, "epochs": n_epochs, "optimizer": optimizer})
    found = adapt(tiny_backbone, images, ModelConfig(), config)

    model = SOTGLP(tiny_backbone, images.classes, seed=config.seed)
    pixels = preprocessed(tiny_backbone, images)
    targets = torch.tensor([images.classes.index(label) for label in images.labels or ()])
    trained = [model.global_prompts, model.local_prompts, model.local_projection]
    means, squares = ([torch.zeros_like(parameter) for parameter in trained] for _ in range(2))
    n_steps = 0
    for epoch in range(n_epochs):
        rate = config.learning_rate * (1 + math.cos(math.pi * epoch / n_epochs)) / 2
        for batch in epoch_batches(len(images), config, epoch):
            n_steps += 1
            outputs, scale = model(pixels[batch]), tiny_backbone.logit_scale
            loss = F.cross_entropy(scale * outputs.global_logits, targets[batch])
            loss = loss + F.cross_entropy(scale * outputs.local_logits, targets[batch])
            for index, gradient in enumerate(torch.autograd.grad(loss, trained)):
                if sgd:
                    means[index] = 0.9 * means[index] + gradient + 0.01 * trained[index].detach()
                    step = means[index]
                else:
                    if optimizer == "adam":
                        gradient = gradient + 0.1 * trained[index].detach()
                    means[index] = 0.9 * means[index] + 0.1 * gradient
                    squares[index] = 0.999 * squares[index] + 0.001 * gradient**2
                    step = means[index] / (1 - 0.9**n_steps) / ((squares[index] / (1 - 0.999**n_steps)).sqrt() + 1e-8)
                    if optimizer == "adamw":
                        step = step + 0.1 * trained[index].detach()
                with torch.no_grad():
                    trained[index] -= rate * step
    assert found.history[0]["learning_rate"] == config.learning_rate
    if sgd:
        assert_same(found.model, model, exactly=False)
    for name, value in learned(found.model).items():
        # Where a gradient is next to nothing, Adam makes a whole step of its rounding.
        far = (value - learned(model)[name]).abs() > 1e-4
        assert far.float().mean() < 1e-3, name


@pytest.mark.parametrize("matching", ["transport", "uniform", "per-prompt"])
def test_it_learns(tiny_backbone: Backbone, images: ImageSet, matching: str) -> None:
    fitted = run(tiny_backbone, images, {"matching": matching}, epochs=30, augment=False, batch_size=18)
    first, last = fitted.history[0], fitted.history[-1]
    assert last["loss"] < 0.8 * first["loss"]
    assert last["loss_local"] < first["loss_local"]
    assert last["accuracy"] == 1.0


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_gradient_accumulation_changes_nothing(tiny_backbone: Backbone, images: ImageSet, micro_batch: int) -> None:
    whole = run(tiny_backbone, images, batch_size=8, views=1)
    parts = run(tiny_backbone, images, batch_size=8, views=1, micro_batch=micro_batch)
    assert_same(whole.model, parts.model, exactly=False)
    assert parts.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], rel=1e-4)


def test_batches_of_an_epoch() -> None:
    config = TrainConfig(batch_size=4)
    batches = epoch_batches(10, config, epoch=0)
    assert [len(batch) for batch in batches] == [4, 4]
    assert len(set(np.concatenate(batches))) == 8
    assert not np.array_equal(batches, epoch_batches(10, config, epoch=1))
    assert [len(batch) for batch in epoch_batches(3, config, epoch=0)] == [3]


def test_every_epoch_sees_new_views_when_none_are_stored(tiny_backbone: Backbone, images: ImageSet) -> None:
    fresh = run(tiny_backbone, images, epochs=2, views=0)
    stored = run(tiny_backbone, images, epochs=2, views=1)
    assert fresh.history[0]["loss"] == pytest.approx(stored.history[0]["loss"], rel=1e-5)
    assert fresh.history[1]["loss"] != pytest.approx(stored.history[1]["loss"], rel=1e-5)


@pytest.mark.parametrize("branch", ["global", "local"])
@pytest.mark.parametrize("source", [{"views": 2, "micro_batch": 3}, {"views": 0}], ids=str)
def test_a_branch_alone_learns_what_it_learns_beside_the_other(
    tiny_backbone: Backbone, images: ImageSet, branch: str, source: dict[str, Any]
) -> None:
    """The branches share no parameter and their losses are added up, so that neither changes the other's gradient."""
    alone = run(tiny_backbone, images, {"branches": branch}, **source)
    both = run(tiny_backbone, images, **source)
    start = SOTGLP(tiny_backbone, images.classes)
    names = {"global": {"global_prompts"}, "local": {"local_prompts", "local_projection"}}[branch]
    for name, value in learned(alone.model).items():
        expected = both.model if name in names else start
        torch.testing.assert_close(value, getattr(expected, name).detach(), rtol=1e-4, atol=1e-6)
    other = {"global": "local", "local": "global"}[branch]
    for ours, theirs in zip(alone.history, both.history, strict=True):
        assert ours["loss"] == ours[f"loss_{branch}"] == pytest.approx(theirs[f"loss_{branch}"], rel=1e-5)
        assert ours[f"loss_{other}"] == 0


class Killed(Exception):
    pass


def resumed_after(epochs: int, path: Path, monkeypatch: pytest.MonkeyPatch, *run: Any) -> Fitted:
    """A fit that is killed after some epochs and then resumed."""
    write = Checkpoint.write

    def write_and_die(self: Checkpoint, *state: Any) -> None:
        write(self, *state)
        if len(state[-1]) == epochs:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "write", write_and_die)
        with pytest.raises(Killed):
            adapt(*run, checkpoint=path)
    return adapt(*run, checkpoint=path, resume=True)


@pytest.mark.parametrize(
    ("method", "changes", "after"),
    [
        ("sot-glp", {"augment": False}, 1),
        ("sot-glp", {"augment": False}, 2),
        ("sot-glp", {"views": 2}, 1),
        ("sot-glp", {"views": 0}, 2),
        ("sot-glp", {"branches": "global"}, 1),
        ("sot-glp", {"branches": "local"}, 1),
        *((method, {"optimizer": "adamw"}, 1) for method in ("sot-glp", "tip-adapter-f", "clip-adapter", "locoop")),
        ("clip-lora", {"optimizer": "adamw", "views": 0}, 1),
        ("gallop", {"optimizer": "adamw"}, 2),
    ],
    ids=str,
)
def test_a_killed_run_resumes_to_the_same_bits(
    tiny_backbone: Backbone,
    images: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    changes: dict[str, Any],
    after: int,
) -> None:
    settings, config = METHODS[method].settings_on(Preset(), {**QUICK, **changes})
    whole = adapt(tiny_backbone, images, settings, config)
    resumed = resumed_after(after, tmp_path / "m.checkpoint", monkeypatch, tiny_backbone, images, settings, config)
    assert_same(whole.model, resumed.model)
    assert whole.history == resumed.history
    if config.optimizer == "adamw":  # the stored state of the optimiser matters
        other = adapt(tiny_backbone, images, settings, config.model_copy(update={"optimizer": "sgd"}))
        assert other.history[-1]["loss"] != whole.history[-1]["loss"]


def test_a_checkpoint_of_another_run_is_refused(tiny_backbone: Backbone, images: ImageSet, tmp_path: Path) -> None:
    path, settings, config = tmp_path / "m.checkpoint", TipAdapterConfig(learn_keys=True), TrainConfig(**QUICK)

    def resume(settings: Any = settings, **changes: Any) -> None:
        adapt(tiny_backbone, images, settings, config.model_copy(update=changes), checkpoint=path, resume=True)

    adapt(tiny_backbone, images, settings, config, checkpoint=path)
    for changes in ({"seed": 5}, {"learning_rate": 0.01}, {"optimizer": "adamw"}, {"settings": ModelConfig()}):
        with pytest.raises(SotglpError, match="belongs to a run with other settings"):
            resume(**changes)
    resume(workers=1)  # more processes make no other result
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SotglpError, match="can't be read as a checkpoint"):
        resume()


def test_identity_depends_on_images_and_weights(tiny_backbone: Backbone, images: ImageSet) -> None:
    model = SOTGLP(tiny_backbone, images.classes)
    identity = run_identity(model, images, TrainConfig())
    assert identity == run_identity(model, images, TrainConfig(workers=3))
    assert identity != run_identity(model, images.take(range(5)), TrainConfig())
    swapped = ImageSet(images.images, (images.labels[-1], *images.labels[1:-1], images.labels[0]))
    assert identity != run_identity(model, swapped, TrainConfig())
    assert identity != run_identity(SOTGLP(tiny_backbone, images.classes, top_k=3), images, TrainConfig())
    ordinary = Backbone.from_open_clip(tiny_clip(), patch_attention="ordinary")
    assert identity != run_identity(SOTGLP(ordinary, images.classes), images, TrainConfig())


@pytest.mark.parametrize(
    ("model", "config", "words"),
    [
        ({"relaxation": 0.001}, {}, "^relaxation must be at least 1/200 of the largest absolute cost"),
        ({}, {"learning_rate": 1e18, "augment": False}, r"diverged at epoch \d, step \d.*learning rate \(now 1e\+18\)"),
        ({}, {"views": 2}, "KiB of memory"),
    ],
)
def test_fits_that_fail(
    tiny_backbone: Backbone, images: ImageSet, monkeypatch: pytest.MonkeyPatch, model: Any, config: Any, words: str
) -> None:
    if "views" in config:
        monkeypatch.setattr("sotglp.features.view_cache.MAX_MEMORY_BYTES", 1000)
    with pytest.raises(SotglpError, match=words):
        run(tiny_backbone, images, model, **config)
    with pytest.raises(SotglpError, match="needs labelled images"):
        run(tiny_backbone, ImageSet.from_items(list(images.images)))


def test_shots_are_remembered_as_the_backbone_sees_them(tiny_backbone: Backbone, images: ImageSet) -> None:
    fitted = run(tiny_backbone, images, shots=2, seed=5)
    shots = fitted.model.shots
    assert sorted(fitted.images.labels) == sorted([*COLOURS] * 2)
    features, patches = tiny_backbone.encode_image(preprocessed(tiny_backbone, fitted.images))
    torch.testing.assert_close(shots.features, F.normalize(features, dim=-1), rtol=1e-4, atol=1e-6)
    assert [fitted.model.class_names[own] for own in shots.classes] == list(fitted.images.labels)
    # Each shot's region is the mean of its patches, weighed by its own class's plan; they come in half precision.
    patches = patches.half()
    outputs = fitted.model.compare(EncodedImages(features, patches), fitted.model.encode_text())
    patches = patches.float()
    joint = F.normalize(tiny_backbone.project_patches(patches), dim=-1)
    for index, own in enumerate(shots.classes.tolist()):
        kept = outputs.support[index, own]
        region = (outputs.plan[index, own].sum(dim=-1)[:, None] * joint[index, kept]).sum(dim=0)
        torch.testing.assert_close(shots.regions[index], F.normalize(region, dim=0), rtol=1e-3, atol=1e-5)


def test_without_remembering_nothing_is_kept_and_the_same_is_learned(tiny_backbone: Backbone, images: ImageSet) -> None:
    with_shots, without = (run(tiny_backbone, images, remember=remember) for remember in (True, False))
    assert without.model.shots is None
    assert_same(with_shots.model, without.model)


def test_unreadable_images(tiny_backbone: Backbone, class_folders: Path) -> None:
    first, *others = sorted((class_folders / "red_brick").iterdir())
    first.write_bytes(b"not an image")
    images = ImageSet.from_path(class_folders)
    with pytest.raises(UnreadableImageError, match=r"0\.png"):
        run(tiny_backbone, images)
    found: list[UnreadableImageError] = []
    fitted = adapt(tiny_backbone, images, ModelConfig(), TrainConfig(**QUICK), unreadable=found)
    assert [Path(str(error.source)).name for error in found] == ["0.png"]
    assert len(fitted.images) == len(images) - 1
    for path in others:
        path.write_bytes(b"")
    with pytest.raises(SotglpError, match="no image of the class 'red_brick' can be read"):
        adapt(tiny_backbone, images, ModelConfig(), TrainConfig(**QUICK), unreadable=[])


def test_images_in_memory(tiny_backbone: Backbone) -> None:
    rng = np.random.default_rng(0)
    labels = [name for name in COLOURS for _ in range(4)]
    pictures = ImageSet.from_items([coloured_image(rng, COLOURS[name]) for name in labels], labels)
    fitted = run(tiny_backbone, pictures, augment=False)
    pixels = preprocessed(tiny_backbone, pictures)
    again = run(tiny_backbone, ImageSet.from_items(pixels, labels), augment=False)
    assert_same(fitted.model, again.model)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_about_the_same(tiny_backbone: Backbone, images: ImageSet, precision: str) -> None:
    exact = run(tiny_backbone, images, augment=False, batch_size=18)
    half = run(tiny_backbone, images, augment=False, batch_size=18, precision=precision)
    assert half.history[-1]["loss"] == pytest.approx(exact.history[-1]["loss"], rel=0.02)
    assert half.model.local_prompts.dtype == torch.float32


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    ("settings", "n_views"),
    [({"augment": False}, 1), ({"views": 2}, 3), ({"views": 2, "remember": False}, 2)],
    ids=["centre crops", "random views, and centre crops to remember", "random views"],
)
def test_each_view_is_encoded_once(
    tiny_backbone: Backbone,
    images: ImageSet,
    settings: dict[str, Any],
    n_views: int,
    on_disk: bool,
    sent: list[int],
    tmp_path: Path,
) -> None:
    residual = {"residual": "gda"} if settings.get("remember", True) else {}
    config = TrainConfig(**{**QUICK, **settings})
    adapt(tiny_backbone, images, ModelConfig(**residual), config, cache_dir=tmp_path if on_disk else None)
    assert sum(sent) == n_views * len(images)


def test_train_changes_nothing_but_prompts_and_projection(tiny_backbone: Backbone, images: ImageSet) -> None:
    model = SOTGLP(tiny_backbone, images.classes)
    before = tiny_backbone.fingerprint
    start = {name: value.clone() for name, value in learned(model).items()}
    train(model, images, TrainConfig(**QUICK))
    assert all(not torch.equal(value, start[name]) for name, value in learned(model).items())
    del tiny_backbone.__dict__["fingerprint"]
    assert tiny_backbone.fingerprint == before
