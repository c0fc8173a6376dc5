"""What every engine does: one local process, two of them, and actors of a Ray cluster that the tests start."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sotglp import SOTGLP, Backbone, SotglpError, SotglpWarning
from sotglp.benchmark.runner import RunConfig, run_suite
from sotglp.benchmark.suite import load_suite
from sotglp.bulk.predict_shard import BulkSettings
from sotglp.bulk.run import predict_shards
from sotglp.engines import EngineConfig, run_tasks
from sotglp.engines.tasks import SetUp
from sotglp.model_file.save import save_model
from sotglp.settings import InferenceConfig
from sotglp.shards.find import find_shards
from support.engine_tasks import DiesOnce, Mishaps, Squares
from support.ray_cluster import ray_cluster
from support.samples import make_class_folders
from support.shards import COLOURS, web_dataset

SQUARES = {index: task**2 for index, task in enumerate(range(5, 15))}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ray_cluster(2) as address:
        yield address


@pytest.fixture(params=["one", "two", "ray"])
def engine(request: pytest.FixtureRequest) -> EngineConfig:
    if request.param == "ray":
        return EngineConfig("ray", 2, request.getfixturevalue("address"))
    return EngineConfig(n_workers=["one", "two"].index(request.param) + 1)


def run(set_up: SetUp, engine: EngineConfig) -> dict[int, int]:
    with run_tasks(set_up, range(5, 15), engine) as results:
        return dict(results)


def test_without_tasks_nothing_is_set_up(engine: EngineConfig, tmp_path: Path) -> None:
    with run_tasks(Squares(tmp_path), [], engine) as results:
        assert list(results) == []
    assert list(tmp_path.iterdir()) == []


def test_errors_and_warnings_of_tasks_arrive(engine: EngineConfig, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(Mishaps(tmp_path, warns=9), engine) == SQUARES
    assert [str(one.message) for one in caught] == ["squares grow"]
    with pytest.raises(SotglpError, match=r"^task 9 can't be done$"):
        run(Mishaps(tmp_path, fails=9), engine)


@pytest.mark.parametrize("engine", ["two", "ray"], indirect=True)
def test_tasks_of_a_killed_worker_run_again(engine: EngineConfig, tmp_path: Path) -> None:
    with pytest.warns(SotglpWarning, match=r"a worker process was killed.*\b8\b"):
        assert run(Mishaps(tmp_path, dies_once=8), engine) == SQUARES
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("engine", ["two", "ray"], indirect=True)
def test_a_task_that_kills_every_worker_is_named(engine: EngineConfig, tmp_path: Path) -> None:
    found = []
    with (
        run_tasks(Mishaps(tmp_path, dies=8), range(5, 9), engine) as results,
        pytest.raises(SotglpError, match="worked on 8,"),
        pytest.warns(SotglpWarning, match="a worker process was killed"),
    ):
        found.extend(results)
    assert sorted(found) == [(0, 25), (1, 36), (2, 49)]


def test_a_ray_address_needs_the_engine_ray() -> None:
    with pytest.raises(SotglpError, match="give --engine ray"):
        EngineConfig(ray_address="127.0.0.1:6379")
    with pytest.raises(SotglpError, match="no engine 'dask'"):
        EngineConfig("dask")


def test_a_benchmark_on_ray_has_the_same_results(address: str, tmp_path: Path) -> None:
    make_class_folders(tmp_path / "train", per_class=4, seed=0)
    suite: dict[str, Any] = {
        "backbone": {"name": "tiny", "pretrained": "auto"},
        "datasets": {"own": {"train": "train", "test": "train"}},
        "methods": {"zero-shot": {}, "gda": {}, "coop": {"learning_rate": 1e30}},
        "shots": [2],
        "seeds": [1],
        "settings": {"epochs": 1, "augment": False},
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite))
    config = RunConfig(load_suite(str(tmp_path / "s.yaml")), tmp_path, tmp_path / "cache")
    runs = [
        run_suite(config, tmp_path / engine.name, engine=engine)
        for engine in (EngineConfig(), EngineConfig("ray", 2, address))
    ]
    metrics = [{result.key: result.metrics for result in run.results} for run in runs]
    assert len(metrics[0]) == 2
    assert metrics[0] == metrics[1]
    assert runs[0].failed == runs[1].failed != {}


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, three archives, and their predictions by one process."""
    folder = tmp_path_factory.mktemp("predicted")
    save_model(folder / "m.safetensors", SOTGLP(Backbone.load("tiny"), list(COLOURS)).eval())
    (folder / "in").mkdir()
    for i in range(3):
        (folder / "in" / f"{i}.tar").write_bytes(web_dataset(2 + i, seed=i))
    predict_all(folder, folder / "one", EngineConfig())
    return folder


def predict_all(folder: Path, out: Path, engine: EngineConfig) -> None:
    settings = BulkSettings(str(folder / "m.safetensors"), InferenceConfig(batch_size=2), device="cpu")
    assert predict_shards(settings, tuple(COLOURS), find_shards([folder / "in"]), out, engine=engine)["n"] == 9


@pytest.mark.parametrize("engine", ["two", "ray"], indirect=True)
def test_predictions_are_the_same_files_though_a_worker_was_killed(
    engine: EngineConfig, predicted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_dying(set_up: SetUp, *arguments: Any, **options: Any) -> Any:
        return run_tasks(DiesOnce(set_up, tmp_path / "died"), *arguments, **options)

    monkeypatch.setattr("sotglp.bulk.run.run_tasks", run_dying)
    with pytest.warns(SotglpWarning, match=r"a worker process was killed.*\.tar"):
        predict_all(predicted, tmp_path / "out", engine)
    parts = sorted((predicted / "one").glob("*.parquet"))
    assert len(parts) == 3
    assert all(part.read_bytes() == (tmp_path / "out" / part.name).read_bytes() for part in parts)
