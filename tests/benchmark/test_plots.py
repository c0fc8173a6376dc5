from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from sotglp.benchmark.plots import accuracy_by_auroc, accuracy_by_shots, accuracy_by_time, styles
from sotglp.benchmark.results import Result
from sotglp.benchmark.scores import Scores
from sotglp.console.figures import save_figure
from sotglp.methods.method import METHODS
from support.results import made


def suite(
    methods: Sequence[str] = tuple(METHODS),
    datasets: Sequence[str] = ("caltech101", "pacs_photo", "rsscn7", "cifar10"),
    shots: Sequence[int] = (1, 4, 16),
    seeds: Sequence[int] = (1, 2, 3),
    spread: float = 0.02,
) -> list[Result]:
    """Results as close together as real ones."""
    rng = np.random.default_rng(0)
    results = []
    for i, method in enumerate(methods):
        is_free = method.startswith("zero-shot")
        for dataset in datasets:
            for number in (0,) if is_free else shots:
                for seed in (0,) if is_free else seeds:
                    accuracy = 0.4 if is_free else 0.5 + 0.08 * np.log2(number + 1)
                    accuracy += spread * rng.normal()
                    auroc = 0.6 if is_free else 0.7 + spread * rng.normal()
                    results.append(
                        made(
                            method,
                            dataset,
                            number,
                            seed,
                            float(accuracy),
                            ood={"far": {"auroc": float(auroc)}, "near": {"auroc": float(auroc) - 0.1}},
                            cost={"fit_seconds": 0.02 if is_free else 2.0 * 1.2**i},
                        )
                    )
    return results


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return suite()


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    figure.canvas.draw()
    return figure


def test_a_panel_for_each_dataset_and_their_mean_and_a_line_for_each_method(results: list[Result]) -> None:
    figure = drawn(accuracy_by_shots(results))
    assert [panel.get_title() for panel in figure.axes] == ["caltech101", "cifar10", "pacs_photo", "rsscn7", "mean"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(METHODS)
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in legend.get_lines()]
    for i, method in enumerate(METHODS):
        for panel in figure.axes:
            line = panel.lines[i]
            assert (line.get_color(), line.get_marker(), line.get_linestyle()) == looks[i]
            of = [result for result in results if result.cell.method == method]
            if panel.get_title() != "mean":
                of = [result for result in of if result.cell.dataset == panel.get_title()]
            at = sorted({result.cell.shots for result in of})
            heights = [
                100 * np.mean([result.metrics.accuracy for result in of if result.cell.shots == shots]) for shots in at
            ]
            if at == [0]:  # from one side to the other
                assert line.get_xdata() == [0, 1]
                assert list(line.get_ydata()) == pytest.approx(heights * 2)
                assert line.get_linestyle() == "--"
                continue
            assert list(line.get_xdata()) == at == [1, 4, 16]
            assert list(line.get_ydata()) == pytest.approx(heights)
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert shown == ["1", "4", "16"]


def test_a_method_that_was_not_run_everywhere_leaves_gaps() -> None:
    results = [*suite(["coop"], ["a", "b"]), *suite(["plot"], ["a"]), *suite(["locoop"], ["a", "b"], shots=[4])]
    figure = drawn(accuracy_by_shots(results))
    lines = {panel.get_title(): [list(line.get_xdata()) for line in panel.lines] for panel in figure.axes}
    assert lines == {"a": [[1, 4, 16], [4], [1, 4, 16]], "b": [[1, 4, 16], [4]], "mean": [[1, 4, 16], [4]]}


@pytest.mark.parametrize("draw", [accuracy_by_auroc, accuracy_by_time])
def test_a_point_for_each_method_at_the_most_shots(results: list[Result], draw: object) -> None:
    figure = drawn(draw(results))  # type: ignore[operator]
    (panel,) = figure.axes
    names = [text.get_text() for text in panel.texts]
    assert names == list(METHODS)
    for method, line in zip(METHODS, panel.lines, strict=True):
        of = [result for result in results if result.cell.method == method and result.cell.shots in (0, 16)]
        y = 100 * np.mean([result.metrics.accuracy for result in of])
        if draw is accuracy_by_auroc:
            x = 100 * np.mean([one["auroc"] for result in of for one in result.metrics.ood.values()])
        else:
            x = np.mean([result.cost.fit_seconds for result in of])
        assert (line.get_xdata()[0], line.get_ydata()[0]) == pytest.approx((x, y))  # type: ignore[index]
    assert panel.get_xscale() == ("linear" if draw is accuracy_by_auroc else "log")
    assert "16 shots" in panel.get_ylabel()


def boxes(figure: Figure) -> list[Bbox]:
    """Extents of all texts."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    found = [text.get_window_extent(renderer) for legend in figure.legends for text in legend.get_texts()]
    for panel in figure.axes:
        words = [panel.title, panel.xaxis.label, panel.yaxis.label]
        for axis in (panel.xaxis, panel.yaxis):
            low, high = axis.get_view_interval()
            # matplotlib keeps ticks outside of the view, but does not draw them.
            words += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        found += [text.get_window_extent(renderer) for text in words if text.get_text()]
        for text in panel.texts:
            assert isinstance(text, Annotation)
            # Without its leader line.
            found.append(super(Annotation, text).get_window_extent(renderer))
    return found


@pytest.mark.parametrize("spread", [0.0, 0.05])
@pytest.mark.parametrize("draw", [accuracy_by_shots, accuracy_by_auroc, accuracy_by_time])
def test_no_text_overlaps_or_is_cut_off(draw: object, spread: float) -> None:
    figure = drawn(draw(suite(shots=(1, 16), seeds=(1,), spread=spread)))  # type: ignore[operator]
    found = boxes(figure)
    assert len(found) > 12
    for box in found:
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1
    for one, other in combinations(found, 2):
        assert min(min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)) <= 1
    for panel in figure.axes if draw is not accuracy_by_shots else []:
        points = np.concatenate([panel.transData.transform(np.column_stack(line.get_data())) for line in panel.lines])
        assert not any(box.contains(*point) for box in found for point in points)


def test_no_two_methods_look_alike_and_each_looks_the_same_in_every_report() -> None:
    everything = styles(Scores(suite(datasets=["a"], shots=[1], seeds=[1])))
    assert len(set(everything.values())) == len(METHODS)
    with_markers = [(style.colour, style.marker) for style in everything.values()]
    assert len(set(with_markers)) == len(METHODS)
    assert len({style.marker for style in everything.values()}) == len(METHODS)  # without colour, too
    few = styles(Scores(suite(["sot-glp", "coop"], ["a"], [1], [1])))
    assert few == {name: everything[name] for name in ("coop", "sot-glp")}
    labels = ["sot-glp", *(f"K {number}" for number in range(25))]
    of_labels = styles(Scores(suite(labels, ["a"], [1], [1])))
    assert len({(style.colour, style.marker) for style in of_labels.values()}) == len(labels)


def test_pictures_that_there_is_nothing_for() -> None:
    free = [made("zero-shot", shots=0, seed=0)]
    assert accuracy_by_shots(free) is None
    assert accuracy_by_shots(suite(shots=[16])) is None
    assert accuracy_by_auroc([made("coop", shots=1)]) is None
    gaps = [made("coop", "a", ood={"far": {"auroc": 0.5}}), made("plot", "b")]
    assert accuracy_by_auroc(gaps) is None
    assert accuracy_by_time(gaps) is None
    instant = drawn(accuracy_by_time([made("zero-shot", shots=0, seed=0, cost={"fit_seconds": 0.0}), made("coop")]))
    assert instant.axes[0].lines[0].get_xdata()[0] == 1e-3  # type: ignore[index]


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_the_same_results_give_the_same_bytes(tmp_path: Path, ending: str) -> None:
    few = suite(["zero-shot", "coop", "sot-glp"], ["a"], [1, 16], [1])
    for folder in ("one", "other"):
        for draw in (accuracy_by_shots, accuracy_by_auroc):
            save_figure(drawn(draw(few)), tmp_path / folder / f"{draw.__name__}{ending}", force=False)
    for name in (f"accuracy_by_shots{ending}", f"accuracy_by_auroc{ending}"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
