from __future__ import annotations

import pytest

from sotglp.benchmark.results import Result
from sotglp.benchmark.scores import Scores
from support.results import made


def accuracy(result: Result) -> float | None:
    return result.metrics.accuracy


def test_names_come_in_the_order_of_tables() -> None:
    methods = ["K 20", "sot-glp", "all", "K 5", "coop", "zero-shot", "K 0.5", "²"]
    datasets = ["rsscn7", "dtd", "imagenet", "cifar10", "caltech101"]
    scores = Scores([made(method, dataset, shots) for method in methods for dataset in datasets for shots in (16, 1)])
    assert scores.methods == ("zero-shot", "coop", "sot-glp", "K 0.5", "K 5", "K 20", "all", "²")
    assert scores.datasets == ("imagenet", "caltech101", "dtd", "cifar10", "rsscn7")
    assert scores.shots == (1, 16)


def test_a_cell_without_shots_stands_for_every_number_of_them() -> None:
    scores = Scores([made("zero-shot", shots=0, seed=0, accuracy=0.3), made(accuracy=0.6, seed=2), made(shots=4)])
    assert scores.by_seed("zero-shot", "birds", 16, accuracy) == {0: 0.3}
    assert scores.by_seed("zero-shot", "birds", 4, accuracy) == {0: 0.3}
    assert scores.by_seed("sot-glp", "birds", 16, accuracy) == {2: 0.6}
    assert scores.by_seed("sot-glp", "birds", 1, accuracy) == {}
    assert scores.shots == (4, 16)
    assert (scores.uses_shots("zero-shot"), scores.uses_shots("sot-glp")) == (False, True)
    assert Scores([made("zero-shot", shots=0, seed=0)]).shots == (0,)


def test_means_over_datasets_at_each_seed() -> None:
    results = [made("coop", "a", seed=seed, accuracy=0.1 * seed) for seed in (1, 2, 3)]
    results += [made("coop", "b", seed=seed, accuracy=0.5) for seed in (3, 2, 1)]
    parts = [("a", accuracy), ("b", accuracy)]
    assert Scores(results).over("coop", 16, parts) == pytest.approx({1: 0.3, 2: 0.35, 3: 0.4})
    # Without one seed of a dataset seeds don't pair, and their spread is not that of the mean.
    assert Scores(results[:-1]).over("coop", 16, parts) == pytest.approx({0: 0.35})
    assert Scores(results[:3]).over("coop", 16, parts) == {}
    assert Scores(results).over("coop", 16, []) == {}


def test_sets_that_are_measured_besides_and_by_which_datasets() -> None:
    far = {"auroc": 0.9}
    results = [
        made(dataset="rsscn7", ood={"zebra": far, "textures": far}),
        made(dataset="caltech101", ood={"sun": far, "zebra": far}),
        made("coop", dataset="dtd"),
    ]
    found = Scores(results).names(lambda result: result.metrics.ood)
    assert list(found.items()) == [
        ("sun", ("caltech101",)),
        ("textures", ("rsscn7",)),
        ("zebra", ("caltech101", "rsscn7")),
    ]
