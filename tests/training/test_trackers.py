from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sotglp import Backbone, SotglpError, SotglpWarning
from sotglp.images.image_set import ImageSet
from sotglp.settings import ModelConfig, TrainConfig
from sotglp.training.fit import adapt
from sotglp.training.trackers import MLflow, TensorBoard, Tracker, WeightsAndBiases, tracker_of

CONFIG = TrainConfig(epochs=2, batch_size=6, shots=None, augment=False)
RECORDED = {"loss", "loss_global", "loss_local", "accuracy", "learning_rate", "seconds"}


@pytest.fixture
def fit(tiny_backbone: Backbone, images: ImageSet) -> Any:
    """Fit two epochs with a tracker, and return their history."""
    return lambda tracker: adapt(tiny_backbone, images, ModelConfig(), CONFIG, callbacks=[tracker]).history


def test_tensorboard_reads_back_each_epoch(fit: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = fit(TensorBoard(tmp_path / "runs"))
    events = EventAccumulator(str(tmp_path / "runs"))
    events.Reload()
    assert {tag.removeprefix("train/") for tag in events.Tags()["scalars"]} == RECORDED
    for name in ("loss", "accuracy", "learning_rate"):
        found = [(event.step, event.value) for event in events.Scalars(f"train/{name}")]
        assert found == [(entry["epoch"], pytest.approx(entry[name], rel=1e-6)) for entry in history]
    (text,) = events.Tensors("settings/text_summary")
    assert b"| batch_size | 6 |" in text.tensor_proto.string_val[0]


def test_mlflow_records_settings_and_epochs(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    history = fit(MLflow("birds", run_name="first"))
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("birds").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_size"] == "6"
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in losses] == [(entry["epoch"], entry["loss"]) for entry in history]


def test_weights_and_biases_records_offline(fit: Any, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    fit(WeightsAndBiases("birds", mode="offline", dir=tmp_path))
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    assert b"train/loss" in content
    assert b"batch_size" in content


class Broken(Tracker):
    """A tracker whose server is lost after the first epoch."""

    title, module, extra = "Broken", "json", "broken"

    def _open(self, settings: Mapping[str, Any]) -> None:
        self.epochs: list[int] = []

    def _log(self, epoch: int, values: dict[str, float]) -> None:
        self.epochs.append(epoch)
        raise ConnectionError("no answer")

    def _close(self, failed: bool) -> None:
        raise AssertionError("closed after it was lost")


def test_training_survives_a_tracker_that_is_lost(fit: Any) -> None:
    tracker = Broken()
    with pytest.warns(SotglpWarning, match=r"Broken records no further epochs \(ConnectionError: no answer\)"):
        assert len(fit(tracker)) == 2
    assert tracker.epochs == [1]


def test_a_tracker_that_cannot_begin_is_a_sentence(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Broken, settings: Mapping[str, Any]) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Broken, "_open", refuse)
    with pytest.raises(SotglpError, match="Broken can't record this run"):
        fit(Broken())


def test_trackers_have_names_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sotglp.training.trackers.find_spec", lambda name: object())
    found = tracker_of("tensorboard:runs/birds")
    assert isinstance(found, TensorBoard)
    assert found.log_dir == "runs/birds"
    project = tracker_of("wandb:birds")
    assert isinstance(project, WeightsAndBiases)
    assert project.project == "birds"
    assert isinstance(tracker_of("mlflow"), MLflow)
    with pytest.raises(SotglpError, match="did you mean tensorboard"):
        tracker_of("tensorbord:x")
    monkeypatch.setattr("sotglp.training.trackers.find_spec", lambda name: None)
    with pytest.raises(SotglpError, match=r"sotglp\[mlflow\]"):
        tracker_of("mlflow")
