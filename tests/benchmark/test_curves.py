from __future__ import annotations

import numpy as np

from sotglp.benchmark.curves import training_by_epoch
from sotglp.benchmark.results import Result
from support.results import made


def trained(method: str, dataset: str, shots: int, seed: int, n_epochs: int) -> Result:
    loss = [seed / epoch for epoch in range(1, n_epochs + 1)]
    return made(method, dataset, shots, seed, curves={"loss": loss, "accuracy": [0.5] * n_epochs})


def test_a_row_of_panels_for_each_dataset_with_means_over_seeds_at_the_most_shots() -> None:
    results = [
        *(trained("coop", name, shots, seed, 3) for name in ("birds", "cars") for shots in (1, 4) for seed in (1, 3)),
        trained("sot-glp", "birds", 4, 1, 5),
        made("gda", "birds", 4, 1),
        made("zero-shot", "birds", 0, 0),
    ]
    figure = training_by_epoch(results)
    assert figure is not None
    loss, accuracy, *others = figure.axes
    assert [panel.get_title().split(":")[0] for panel in figure.axes] == ["birds", "birds", "cars", "cars"]
    by_method = {len(line.get_xdata()): line.get_ydata() for line in loss.lines}
    np.testing.assert_allclose(by_method[3], [2, 1, 2 / 3])
    np.testing.assert_allclose(by_method[5], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), 50)
    assert [len(line.get_xdata()) for line in others[0].lines if len(line.get_xdata())] == [3]
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"coop", "sot-glp"}


def test_results_without_training_have_no_figure() -> None:
    assert training_by_epoch([made("gda"), made("zero-shot", shots=0, seed=0)]) is None
