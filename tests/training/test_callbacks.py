from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sotglp import Backbone, MethodClassifier
from sotglp.images.image_set import ImageSet
from sotglp.settings import ModelConfig, TrainConfig
from sotglp.training.callbacks import EpochResult
from sotglp.training.fit import adapt
from support.estimators import classifier

CONFIG = TrainConfig(epochs=3, batch_size=6, shots=None, augment=False)


class Listener:
    """Keeps what it is told, and fails after an epoch if asked to."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.settings: dict[str, Any] = {}
        self.results: list[EpochResult] = []
        self.ends: list[bool] = []
        self.fail_after = fail_after

    def on_train_begin(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    def on_epoch_end(self, result: EpochResult) -> None:
        self.results.append(result)
        if result.epoch == self.fail_after:
            raise KeyboardInterrupt

    def on_train_end(self, *, failed: bool) -> None:
        self.ends.append(failed)


def test_each_epoch_is_reported_and_nothing_changes(tiny_backbone: Backbone, images: ImageSet) -> None:
    listener = Listener()
    fitted = adapt(tiny_backbone, images, ModelConfig(), CONFIG, callbacks=[listener])
    assert fitted.history == adapt(tiny_backbone, images, ModelConfig(), CONFIG).history
    assert [(result.epoch, result.n_epochs) for result in listener.results] == [(1, 3), (2, 3), (3, 3)]
    for result, entry in zip(listener.results, fitted.history, strict=True):
        assert {name: getattr(result, name) for name in entry} == entry
        assert result.seconds > 0
    assert listener.settings["batch_size"] == 6
    assert listener.settings["images"] == len(images)
    assert listener.ends == [False]


def test_an_interrupted_run_is_ended_and_resumed(tiny_backbone: Backbone, images: ImageSet, tmp_path: Path) -> None:
    listeners = [Listener(), Listener(fail_after=2)]
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        adapt(tiny_backbone, images, ModelConfig(), CONFIG, checkpoint=path, callbacks=listeners)
    assert [listener.ends for listener in listeners] == [[True], [True]]
    rest = Listener()
    adapt(tiny_backbone, images, ModelConfig(), CONFIG, checkpoint=path, resume=True, callbacks=[rest])
    assert [result.epoch for result in rest.results] == [3]


def test_estimators_pass_callbacks_on(tiny_backbone: Backbone, class_folders: Path) -> None:
    listener = Listener()
    classifier(tiny_backbone, epochs=2).fit(class_folders, callbacks=[listener])
    assert len(listener.results) == 2
    without_training = Listener()
    MethodClassifier("zero-shot", tiny_backbone).fit(class_folders, callbacks=[without_training])
    assert without_training.results == []
    assert without_training.ends == [False]
