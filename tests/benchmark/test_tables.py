from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy import stats

from sotglp.benchmark.published import published_columns
from sotglp.benchmark.results import Result
from sotglp.benchmark.statistics import detectable_effect
from sotglp.benchmark.table import Table, to_csv
from sotglp.benchmark.tables import long_rows, tables
from support.results import VIT, made


def texts(table: Table) -> dict[str, list[str]]:
    return {row[0].text: [field.text for field in row[1:]] for row in table.rows}


def best(table: Table) -> set[tuple[str, str]]:
    """Method and column of every field in bold."""
    return {
        (row[0].text, name)
        for row in table.rows
        for name, field in zip(table.header, row, strict=True)
        if field.is_best
    }


def titled(results: list[Result], beginning: str) -> Table:
    (table,) = (table for table in tables(results) if table.title.startswith(beginning))
    return table


def seeded(method: str, dataset: str, accuracies: list[float], shots: int = 16) -> list[Result]:
    return [made(method, dataset, shots, seed, accuracy) for seed, accuracy in enumerate(accuracies, start=1)]


@pytest.fixture
def results() -> list[Result]:
    return [
        made("zero-shot", "birds", 0, 0, 0.4),
        made("zero-shot", "cars", 0, 0, 0.2),
        *seeded("sot-glp", "birds", [0.50, 0.52, 0.54]),
        *seeded("sot-glp", "cars", [0.60, 0.70, 0.80]),
        *seeded("coop", "birds", [0.52, 0.52, 0.52]),
        *seeded("coop", "birds", [0.3], shots=1),
    ]


def test_accuracy(results: list[Result]) -> None:
    table = titled(results, "Accuracy with 16 shots")
    assert table.header == ("method", "birds", "cars", "mean")
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)
    of_means = half * np.std([0.55, 0.61, 0.67], ddof=1)
    assert texts(table) == {
        "zero-shot": ["40.0", "20.0", "30.0"],
        "coop": ["52.0 ± 0.0", "–", "–"],
        "sot-glp": [f"52.0 ± {2 * half:.1f}", f"70.0 ± {10 * half:.1f}", f"61.0 ± {100 * of_means:.1f}"],
    }
    # What reads the same is equally good.
    assert best(table) == {("coop", "birds"), ("sot-glp", "birds"), ("sot-glp", "cars"), ("sot-glp", "mean")}
    assert table.notes == (
        "Means over 3 seeds; ± is half the 95 % interval by Student's t. Numbers without ± have a single seed or don't "
        "depend on it.",
        "–: not measured; a mean needs all of its parts.",
    )
    field = table.rows[2][1]
    assert field.summary is not None
    assert field.summary.mean == pytest.approx(0.52)


def test_a_table_for_each_number_of_shots_the_most_first(results: list[Result]) -> None:
    assert [table.title for table in tables(results) if table.title.startswith("Accuracy")] == [
        "Accuracy with 16 shots (%)",
        "Accuracy with 1 shot (%)",
    ]
    one_shot = titled(results, "Accuracy with 1 shot")
    assert texts(one_shot) == {"zero-shot": ["40.0", "20.0", "30.0"], "coop": ["30.0", "–", "–"]}
    assert one_shot.notes[0].startswith("All numbers are of one seed")
    assert not any(table.title.startswith("Paired") for table in tables([made("coop"), made("plot")]))
    only_free = tables([made("zero-shot", shots=0, seed=0)])
    assert [table.title for table in only_free] == ["Accuracy (%)", "Cost of a few-shot cell"]


def test_seeds_that_differ_between_cells_are_told() -> None:
    table = titled([*seeded("coop", "a", [0.5, 0.6]), *seeded("coop", "b", [0.5, 0.6, 0.7])], "Accuracy")
    assert "Means over 2 to 3 seeds" in table.notes[0]
    assert best(table) == set()  # of a single method
    assert not any("ublished" in note for note in table.notes)  # another backbone
    assert texts(table)["coop"][2] == "57.5"  # of 55 and 60; without an interval, as seeds don't pair


def test_the_order_of_lines_makes_no_difference(results: list[Result]) -> None:
    assert tables(results[::-1]) == tables(results)
    assert long_rows(results[::-1]) == long_rows(results)


def test_published_numbers_stand_in_rows_of_their_own() -> None:
    results = [
        made(method, dataset, accuracy=0.9, backbone=VIT)
        for dataset in published_columns("accuracy")
        for method in ("sot-glp", "coop")
    ]
    table = titled(results, "Accuracy")
    assert list(texts(table)) == [
        "coop",
        "sot-glp",
        *(f"{name} (published)" for name in ("zero-shot", "coop", "plot", "promptsrc", "gallop", "sot-glp")),
    ]
    assert " ".join(texts(table)["coop (published)"]) == "71.7 95.6 91.9 83.1 97.1 84.2 43.4 74.7 69.9 84.9 82.2 79.9"
    assert texts(table)["sot-glp (published)"] == ["–"] * 11 + ["85.1"]
    # Flowers are published with more than 90: published rows are never the best.
    assert best(table) == {(method, name) for method in ("coop", "sot-glp") for name in table.header[1:]}
    assert "GalLoP's README (zero-shot, coop, plot, promptsrc, gallop)" in table.notes[-2]
    assert "SOT-GLP abstract, arXiv 2603.08347 (sot-glp)" in table.notes[-2]
    assert table.notes[-1].startswith("zero-shot: its mean is printed as 75.7")


def test_published_means_stand_only_under_means_of_the_same() -> None:
    results = [made("coop", dataset, backbone=VIT) for dataset in ("dtd", "eurosat", "birds")]
    published = texts(titled(results, "Accuracy"))
    assert published["gallop (published)"] == ["75.5", "90.1", "–", "–"]
    assert "sot-glp (published)" not in published
    assert len(texts(titled([made("coop", "dtd", backbone=VIT, shots=8)], "Accuracy"))) == 2  # and zero-shot


def test_out_of_distribution_detection() -> None:
    def ood(**aurocs: float) -> dict[str, dict[str, float]]:
        return {name: {"auroc": auroc, "fpr95": 1 - auroc, "n": 9} for name, auroc in aurocs.items()}

    results = [
        made("coop", "birds", ood=ood(far=0.9, near=0.6)),
        made("coop", "cars", ood=ood(far=0.7)),
        made("sot-glp", "birds", ood=ood(far=0.8, near=0.8)),
        made("sot-glp", "cars", ood=ood(far=0.9)),
        made("plot", "cars", ood=ood(far=0.5)),
        made("gallop", "birds"),
    ]
    auroc = titled(results, "Out-of-distribution detection with 16 shots: AUROC")
    assert auroc.header == ("method", "far", "near", "mean")
    # The mean weighs every pair of a dataset and a set alike.
    assert texts(auroc) == {"coop": ["80.0", "60.0", "73.3"], "sot-glp": ["85.0", "80.0", "83.3"]}
    assert best(auroc) == {("sot-glp", "far"), ("sot-glp", "near"), ("sot-glp", "mean")}
    assert "GL-MCM. Test sets, with training datasets in brackets: far (birds, cars); near (birds)." in auroc.notes[1]
    fpr = titled(results, "Out-of-distribution detection with 16 shots: FPR")
    assert texts(fpr) == {"coop": ["20.0", "40.0", "26.7"], "sot-glp": ["15.0", "20.0", "16.7"]}
    assert best(fpr) == best(auroc)


def test_published_ood_and_shift_of_imagenet() -> None:
    ood = {name: {"auroc": 0.5, "fpr95": 0.5} for name in published_columns("auroc")}
    shift = {name: {"accuracy": 0.5} for name in published_columns("shift")}
    found = [made("gallop", "imagenet", backbone=VIT, ood=ood, shift=shift)]
    auroc = texts(titled(found, "Out-of-distribution detection with 16 shots: AUROC"))
    assert auroc["gallop (published)"] == ["97.1", "94.0", "91.3", "90.4", "93.2"]
    assert auroc["zero-shot (published, MCM)"] == ["94.6", "92.6", "89.8", "86.1", "90.8"]
    assert auroc["zero-shot (published, GL-MCM)"] == ["96.7", "93.1", "89.9", "83.6", "90.8"]
    assert auroc["sot-glp-projection-free (published)"] == ["–"] * 4 + ["94.2"]
    fpr = texts(titled(found, "Out-of-distribution detection with 16 shots: FPR"))
    assert fpr["locoop (published, GL-MCM)"] == ["16.1", "23.4", "32.9", "42.3", "28.7"]
    assert "sot-glp-projection-free (published)" not in fpr
    assert texts(titled(found, "Accuracy under domain shift"))["promptsrc (published)"][-1] == "60.7"
    # Of a model of other images those numbers say nothing.
    other = tables([made("gallop", "dtd", backbone=VIT, ood=ood, shift=shift)])
    assert [len(table.rows) for table in other if "Out-of" in table.title or "shift" in table.title] == [1, 1, 1]


def test_shift_and_transfer() -> None:
    def sets(**accuracies: float | None) -> dict[str, dict[str, float | None]]:
        return {name: {"accuracy": accuracy, "n": 9} for name, accuracy in accuracies.items()}

    results = [
        made("linear-probe", shift=sets(sketch=0.3, cartoon=0.5), transfer=sets(cars=None)),
        made("coop", shift=sets(sketch=0.4, cartoon=0.2), transfer=sets(cars=0.25)),
    ]
    shift = titled(results, "Accuracy under domain shift")
    assert shift.header == ("method", "cartoon", "sketch", "mean")
    assert texts(shift) == {"linear-probe": ["50.0", "30.0", "40.0"], "coop": ["20.0", "40.0", "30.0"]}
    assert "Trained on birds." in shift.notes
    assert texts(titled(results, "Accuracy on other datasets")) == {"coop": ["25.0"]}


def test_base_to_new_means_are_those_of_the_means() -> None:
    def halves(method: str, dataset: str, base: float, new: float | None) -> Result:
        mean = None if new is None else 2 * base * new / (base + new)
        metrics = {"base": base, "new": new, "harmonic_mean": mean, "n_base": 5, "n_new": 5}
        return made(method, dataset, accuracy=base, protocol="base-to-new", base_to_new=metrics)

    results = [
        halves("sot-glp", "birds", 0.8, 0.4),
        halves("sot-glp", "cars", 0.6, 0.6),
        halves("linear-probe", "birds", 0.9, None),
        halves("linear-probe", "cars", 0.9, None),
    ]
    assert texts(titled(results, "Accuracy on base classes")) == {
        "linear-probe": ["90.0", "90.0", "90.0"],
        "sot-glp": ["80.0", "60.0", "70.0"],
    }
    assert texts(titled(results, "Accuracy on new classes")) == {"sot-glp": ["40.0", "60.0", "50.0"]}
    # 2 x 0.7 x 0.5 / 1.2, where the mean of both harmonic means would be 56.7.
    assert texts(titled(results, "Harmonic mean")) == {"sot-glp": ["53.3", "60.0", "58.3"]}
    assert not any(table.title.startswith("Accuracy with") for table in tables(results))
    both = tables([*results, made("coop")])
    assert [table.title for table in both if "Cost" in table.title] == [
        "Cost of a few-shot cell with 16 shots",
        "Cost of a base-to-new cell with 16 shots",
    ]


def test_prompts_are_of_methods_that_have_some() -> None:
    results = [
        made("coop"),
        made("plot", prompts={"overlap": 0.5, "dominance": 0.25, "plan_entropy": 0.9876}),
        made("sot-glp", "birds", prompts={"overlap": 0.2, "dominance": 0.25, "plan_entropy": 0.5}),
    ]
    table = titled(results, "Local prompts with 16 shots")
    assert texts(table) == {"plot": ["0.500", "0.250", "0.988"], "sot-glp": ["0.200", "0.250", "0.500"]}
    assert best(table) == set()


def test_cost() -> None:
    results = [
        made("coop", "birds", cost={"fit_seconds": 100.4, "evaluate_seconds": 1.23, "peak_memory_mb": None}),
        made("coop", "cars", cost={"fit_seconds": 300.0, "evaluate_seconds": 1.23, "threads": 2}),
        made("zero-shot", "birds", 0, 0, cost={"fit_seconds": 0.012}),
        made("zero-shot", "cars", 0, 0, cost={"fit_seconds": 0.03}),
    ]
    table = titled(results, "Cost")
    assert texts(table) == {"zero-shot": ["0.02", "1", "512", "1"], "coop": ["200", "1.2", "–", "1.5"]}
    assert best(table) == {("zero-shot", "fit (s)"), ("zero-shot", "evaluate (s)")}


def test_paired_differences() -> None:
    rng = np.random.default_rng(0)
    names = [f"d{i}" for i in range(7)]
    values = {method: rng.uniform(0.3, 0.9, size=(7, 3)) for method in ("coop", "plot", "sot-glp")}
    results = [
        made(method, name, 16, seed + 1, float(values[method][i, seed]))
        for method in values
        for i, name in enumerate(names)
        for seed in range(3)
    ]
    results += [made("zero-shot", "d3", 0, 0, 0.1), made("locoop", "elsewhere")]
    table = titled(results, "Paired differences of accuracy with 16 shots")
    assert table.header[0] == "sot-glp against"
    means = {method: of.mean(axis=1) for method, of in values.items()}
    tests = {method: stats.ttest_rel(means["sot-glp"], means[method]) for method in ("coop", "plot")}
    ranks = {method: stats.wilcoxon(means["sot-glp"], means[method]).pvalue for method in tests}
    free = values["sot-glp"][3] - 0.1
    p_values = [tests["coop"].pvalue, tests["plot"].pvalue, stats.ttest_1samp(free, 0).pvalue]
    for method, test in tests.items():
        interval = test.confidence_interval(0.95)
        difference, bounds, effect, detectable, p, p_rank, pairs = texts(table)[method]
        assert difference == f"{100 * (means['sot-glp'] - means[method]).mean():+.1f}"
        assert bounds == f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
        differences = means["sot-glp"] - means[method]
        assert effect.startswith(f"{differences.mean() / differences.std(ddof=1):+.2f} (")
        assert float(detectable) == pytest.approx(100 * detectable_effect(7) * differences.std(ddof=1), abs=0.005)
        order = sorted(p_values)
        assert float(p) == pytest.approx(
            max(min(1, (3 - i) * other) for i, other in enumerate(order) if other <= test.pvalue), abs=6e-4
        )
        smallest = ranks[method] == min(ranks.values())
        expected = 2 * ranks[method] if smallest else max(ranks[method], 2 * min(ranks.values()))
        assert float(p_rank) == pytest.approx(min(1, expected), abs=6e-4)
        assert pairs == "7 datasets"
    # One dataset in common: its seeds are paired.
    assert texts(table)["zero-shot"][0] == f"{100 * free.mean():+.1f}"
    assert texts(table)["zero-shot"][5:] == ["–", "3 seeds"]
    assert "locoop" not in texts(table)


def test_long_form_has_a_line_a_cell_and_every_number_unrounded() -> None:
    results = [
        made("sot-glp", accuracy=1 / 3, ood={"far, away": {"auroc": 0.1 + 0.2}}, prompts={"overlap": 0.5}),
        made("coop", protocol="base-to-new", base_to_new={"base": 0.5, "new": None}, cost={"peak_memory_mb": None}),
    ]
    rows = list(csv.DictReader(io.StringIO(to_csv(long_rows(results)))))
    assert len(rows) == 2
    (coop,), (own,) = ([row for row in rows if row["method"] == name] for name in ("coop", "sot-glp"))
    assert float(own["accuracy"]) == 1 / 3
    assert float(own["ood/far, away/auroc"]) == 0.1 + 0.2
    assert (own["prompts/overlap"], coop["prompts/overlap"]) == ("0.5", "")
    assert (own["peak_memory_mb"], coop["peak_memory_mb"]) == ("512.0", "")
    assert coop["base_to_new/base"] == "0.5"
    assert (own["backbone/name"], own["key"], own["seed"], own["n"]) == ("tiny", results[0].key, "1", "40")
    assert list(rows[0])[:7] == ["suite", "protocol", "dataset", "method", "shots", "seed", "accuracy"]
