"""The tables of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import harmonic_mean
from typing import Any, Literal

from sotglp.benchmark.cells import ANY
from sotglp.benchmark.columns import (
    MISSING,
    Column,
    dataset_columns,
    fraction,
    over,
    percent,
    quantity,
    set_columns,
    table_of,
)
from sotglp.benchmark.published import MEAN, Kind, published, published_columns, published_rows
from sotglp.benchmark.results import Result
from sotglp.benchmark.scores import Measure, Scores
from sotglp.benchmark.statistics import Summary, holm, paired
from sotglp.benchmark.table import Entry, Table
from sotglp.settings import InferenceConfig

REFERENCE = "sot-glp"
"""The method that the others are compared with."""

COMPARED = (REFERENCE, "sot-glp-gda")
"""Methods whose accuracy is compared with that of each other one."""

FEW_SHOT, BASE_TO_NEW = "few-shot", "base-to-new"


def tables(results: Sequence[Result]) -> list[Table]:
    """Make all tables that have rows, from results on one backbone, one per cell.

    Accuracy and paired comparisons have a table for each number of shots, largest first; the others for the largest.
    """
    found = []
    few_shot = [result for result in results if result.cell.protocol == FEW_SHOT]
    if few_shot:
        scores, backbone = Scores(few_shot), few_shot[0].backbone
        most = scores.shots[-1]
        accuracies = [accuracy_table(scores, shots, backbone) for shots in reversed(scores.shots)]
        comparisons = [
            paired_table(scores, shots, accuracy_of, "accuracy", reference)
            for reference in COMPARED
            for shots in reversed(scores.shots)
        ]
        others = [
            ood_table(scores, most, "auroc", backbone),
            ood_table(scores, most, "fpr95", backbone),
            shift_table(scores, most, backbone),
            transfer_table(scores, most),
            prompts_table(scores, most),
            cost_table(scores, most, FEW_SHOT),
        ]
        found += [*accuracies, *comparisons, *others]
    halves = [result for result in results if result.cell.protocol == BASE_TO_NEW]
    if halves:
        scores = Scores(halves)
        most = scores.shots[-1]
        found += [base_to_new_table(scores, most, name) for name in ("base", "new", "harmonic_mean")]
        found += [
            paired_table(scores, most, _half("harmonic_mean"), "harmonic mean"),
            cost_table(scores, most, BASE_TO_NEW),
        ]
    return [table for table in found if table.rows]


def accuracy_table(scores: Scores, shots: int, backbone: dict[str, Any]) -> Table:
    """Accuracy on each dataset, with published rows."""
    columns = dataset_columns(scores, shots, accuracy_of)
    rows, notes = _published("accuracy", columns, shots, backbone)
    return table_of(f"Accuracy{_with_shots(shots)} (%)", scores, columns, rows, notes)


def ood_table(scores: Scores, shots: int, metric: Literal["auroc", "fpr95"], backbone: dict[str, Any]) -> Table:
    """AUROC or FPR95 on each out-of-distribution set, averaged over the datasets tested against it."""

    def measure(name: str) -> Measure:
        return lambda result: result.metrics.ood.get(name, {}).get(metric)

    sets = scores.names(lambda result: result.metrics.ood)
    columns = set_columns(scores, shots, sets, measure, max if metric == "auroc" else min)
    rows, notes = _published(metric, columns, shots, backbone) if _is_of_imagenet(sets) else ((), ())
    title = {"auroc": "AUROC, larger is better", "fpr95": "FPR at 95 % TPR, smaller is better"}[metric]
    notes = (f"Measured with the score {InferenceConfig().ood_method.upper()}. {_trained_on(sets)}", *notes)
    return table_of(f"Out-of-distribution detection{_with_shots(shots)}: {title} (%)", scores, columns, rows, notes)


def shift_table(scores: Scores, shots: int, backbone: dict[str, Any]) -> Table:
    """Accuracy on images of the same classes in another style."""
    sets = scores.names(lambda result: result.metrics.shift)
    columns = set_columns(
        scores, shots, sets, lambda name: lambda result: result.metrics.shift.get(name, {}).get("accuracy"), max
    )
    rows, notes = _published("shift", columns, shots, backbone) if _is_of_imagenet(sets) else ((), ())
    title = f"Accuracy under domain shift{_with_shots(shots)} (%)"
    return table_of(title, scores, columns, rows, (_trained_on(sets), *notes))


def transfer_table(scores: Scores, shots: int) -> Table:
    """Accuracy on the classes of other datasets."""
    sets = scores.names(lambda result: result.metrics.transfer)
    columns = set_columns(
        scores, shots, sets, lambda name: lambda result: result.metrics.transfer.get(name, {}).get("accuracy"), max
    )
    title = f"Accuracy on other datasets{_with_shots(shots)} (%)"
    return table_of(title, scores, columns, notes=(_trained_on(sets),))


def base_to_new_table(scores: Scores, shots: int, name: str) -> Table:
    """``base``, ``new`` or ``harmonic_mean`` on each dataset; the mean of the last is that of both means, as published.

    References
    ----------
    CoCoOp, arXiv 2203.05557, table 1.
    """
    columns = dataset_columns(scores, shots, _half(name))
    if name == "harmonic_mean" and len(scores.datasets) > 1:

        def of_means(method: str) -> dict[int, float]:
            base, new = (
                scores.over(method, shots, [(dataset, _half(half)) for dataset in scores.datasets])
                for half in ("base", "new")
            )
            return {seed: harmonic_mean([base[seed], new[seed]]) for seed in base if seed in new}

        columns[-1] = Column(MEAN, of_means, percent, max)
    titles = {
        "base": "Accuracy on base classes",
        "new": "Accuracy on new classes",
        "harmonic_mean": "Harmonic mean of accuracy on base and new classes",
    }
    return table_of(f"{titles[name]}{_with_shots(shots)} (%)", scores, columns)


def prompts_table(scores: Scores, shots: int) -> Table:
    """Use of the local prompts, averaged over datasets."""

    def measure(name: str) -> Measure:
        return lambda result: (result.metrics.prompts or {}).get(name)

    names = {"overlap": "overlap", "dominance": "dominance", "plan_entropy": "plan entropy"}
    columns = [
        Column(title, over(scores, shots, [(dataset, measure(name)) for dataset in scores.datasets]), fraction, None)
        for name, title in names.items()
    ]
    notes = (
        "Overlap: mass that two prompts of a class share, 1 if they use the same patches equally. Dominance: largest "
        "share of the mass of any prompt. Plan entropy: 1 for a uniform plan. Means over datasets.",
    )
    return table_of(f"Local prompts{_with_shots(shots)}", scores, columns, notes=notes, has_interval=False)


def cost_table(scores: Scores, shots: int, protocol: str) -> Table:
    """Seconds and memory, averaged over datasets."""
    measures: dict[str, Measure] = {
        "fit (s)": lambda result: result.cost.fit_seconds,
        "evaluate (s)": lambda result: result.cost.evaluate_seconds,
        "peak memory (MiB)": lambda result: result.cost.peak_memory_mb,
        "threads": lambda result: result.cost.threads,
    }
    columns = [
        Column(
            title,
            over(scores, shots, [(dataset, measure) for dataset in scores.datasets]),
            quantity,
            None if title == "threads" else min,
        )
        for title, measure in measures.items()
    ]
    notes = (
        "Means over datasets. With the feature cache, the first cell that needs an image includes the time to encode "
        "it.",
    )
    return table_of(f"Cost of a {protocol} cell{_with_shots(shots)}", scores, columns, notes=notes, has_interval=False)


def paired_table(scores: Scores, shots: int, measure: Measure, what: str, reference: str = REFERENCE) -> Table:
    """Paired comparison of a method, SOT-GLP by default, with each other one."""

    def values(method: str) -> dict[tuple[str, int], float]:
        return {
            (dataset, seed): value
            for dataset in scores.datasets
            for seed, value in scores.by_seed(method, dataset, shots, measure).items()
        }

    first = values(reference)
    compared = [(method, paired(first, values(method))) for method in scores.methods if method != reference]
    found = [(method, result) for method, result in compared if result is not None]
    rows = []
    p_values, p_ranks = holm([result.p for _, result in found]), holm([result.p_ranks for _, result in found])
    for (method, result), p, p_rank in zip(found, p_values, p_ranks, strict=True):
        difference = Summary(result.difference, result.low, result.high, result.n)
        interval = effect = detectable = MISSING
        if result.low is not None and result.high is not None:
            interval = f"{_points(result.low)} to {_points(result.high)}"
        if result.effect is not None and result.detectable is not None:
            effect, detectable = _effect_text(result.effect), f"{100 * result.detectable:.2f}"
        texts = (interval, effect, detectable, _p_text(p), _p_text(p_rank), f"{result.n} {result.unit}")
        rows.append((Entry(method), Entry(_points(result.difference), difference), *map(Entry, texts)))
    header = (
        *(f"{reference} against", "difference (points)", "95 % interval", "effect size", "detectable (points)"),
        *("p, t-test", "p, signed ranks", "pairs"),
    )
    notes = (
        f"Differences in percentage points; above 0, {reference} is better. With several datasets a pair is a dataset, "
        "its mean over seeds; with one dataset it is a seed. The signed rank test needs six pairs. p-values are "
        "two-sided and Holm-adjusted for the comparisons of this table, intervals are not. The effect size is the "
        "difference in units of the standard deviation of the pairs' differences. A true difference of the points "
        "under detectable would be found by the t-test, without adjustment, with a probability of 0.8: a smaller one "
        "is more often missed.",
    )
    title = f"Paired differences of {what}{'' if reference == REFERENCE else f' from {reference}'}"
    return Table(f"{title}{_with_shots(shots)}", header, tuple(rows), notes)


def long_rows(results: Sequence[Result]) -> Table:
    """All numbers unrounded in long form: one row per cell of the suite."""
    flat = [
        _flat(
            {
                **result.cell.model_dump(),
                **result.metrics.model_dump(),
                **result.cost.model_dump(),
                "key": result.key,
                "backbone": result.backbone,
            }
        )
        for result in sorted(results, key=lambda result: (*map(str, result.cell.model_dump().values()), result.key))
    ]
    names = list(dict.fromkeys(name for row in flat for name in row))
    # Names with a slash depend on the test sets and come last.
    header = tuple(sorted(names, key=lambda name: (name, 0) if "/" in name else ("", names.index(name))))
    rows = tuple(tuple(Entry(str(row.get(name, ""))) for name in header) for row in flat)
    return Table("Every cell", header, rows)


def accuracy_of(result: Result) -> float | None:
    """Return the accuracy of a result."""
    return result.metrics.accuracy


def _effect_text(effect: Summary) -> str:
    has_interval = effect.low is not None and effect.high is not None
    return f"{effect.mean:+.2f}" + (f" ({effect.low:+.2f} to {effect.high:+.2f})" if has_interval else "")


def _half(name: str) -> Measure:
    return lambda result: (result.metrics.base_to_new or {}).get(name)


def _published(
    kind: Kind, columns: Sequence[Column], shots: int, backbone: Mapping[str, Any]
) -> tuple[tuple[tuple[Entry, ...], ...], tuple[str, ...]]:
    """Published rows below measured columns, and notes on them; the mean only if all of its columns are there."""
    names = [column.name for column in columns]
    is_whole = set(names) - {MEAN} == set(published_columns(kind))
    rows, methods, remarks = [], dict[str, list[str]](), []
    for method, score in published_rows(kind):
        found = [
            published(kind, method, name, shots=shots, backbone=backbone, score=score)
            if name != MEAN or is_whole
            else None
            for name in names
        ]
        numbers = [number for number in found if number is not None]
        if not numbers:
            continue
        label = f"{method} (published{f', {score.upper()}' if score else ''})"
        fields = [
            Entry(MISSING) if number is None else Entry(percent(one := Summary(number.value, None, None, 1)), one)
            for number in found
        ]
        rows.append((Entry(label), *fields))
        methods.setdefault(numbers[0].source, []).append(method)
        remarks += [f"{method}: {number.note}." for number in numbers if number.note]
    sources = "; ".join(f"{source} ({', '.join(dict.fromkeys(of))})" for source, of in methods.items())
    notes = (
        (f"Published results on the full test sets, with the authors' training: {sources}.", *remarks) if rows else ()
    )
    return tuple(rows), notes


def _is_of_imagenet(sets: Mapping[str, Sequence[str]]) -> bool:
    """Whether published numbers of ImageNet models are comparable."""
    return all(tuple(datasets) == ("imagenet",) for datasets in sets.values())


def _trained_on(sets: Mapping[str, Sequence[str]]) -> str:
    """The training datasets of the models tested on each set."""
    groups = {tuple(datasets) for datasets in sets.values()}
    if len(groups) <= 1:
        return f"Trained on {', '.join(next(iter(groups), ()))}."
    each = "; ".join(f"{name} ({', '.join(datasets)})" for name, datasets in sets.items())
    return f"Test sets, with training datasets in brackets: {each}."


def _with_shots(shots: int) -> str:
    return "" if shots == ANY else f" with {shots} {'shot' if shots == 1 else 'shots'}"


def _points(value: float) -> str:
    """Percentage points with a sign; zero has a plus."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _p_text(p: float | None) -> str:
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested names joined by slashes, without None."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{name}/")
        elif value is not None:
            flat[f"{above}{name}"] = value
    return flat
