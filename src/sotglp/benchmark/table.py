"""The tables of a benchmark, from results to Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sotglp.benchmark.cells import ANY
from sotglp.benchmark.published import (
    MEAN,
    Kind,
    Published,
    published_accuracy,
    published_columns,
    published_ood,
    published_rows,
    published_shift,
)
from sotglp.benchmark.results import Result
from sotglp.benchmark.statistics import Measure, Part, Scores, Summary, harmonic_mean, holm, paired, summary
from sotglp.config import Reading

MISSING = "–"
REFERENCE = "sot-glp"
"""The method that the others are paired with."""

FEW_SHOT, BASE_TO_NEW = "few-shot", "base-to-new"


@dataclass(frozen=True)
class Entry:
    """A field of a table: what people read, the numbers behind it, and whether it is the best of its column."""

    text: str
    summary: Summary | None = None
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """A table as it is before it is written as Markdown, CSV or LaTeX; the first field of a row names it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column with a row for each method.

    Attributes
    ----------
    name : str
        Its header.
    of : callable
        Values of a method by seed; empty where there are none.
    show : callable
        How their mean is written.
    best : callable or None
        ``max`` or ``min``; None where neither is better.
    """

    name: str
    of: Callable[[str], dict[int, float]]
    show: Callable[[Summary], str]
    best: Callable[[list[float]], float] | None = max


def percent(value: Summary) -> str:
    """Percent with one decimal, and half of the interval where there is one."""
    half = "" if value.low is None or value.high is None else f" ± {50 * (value.high - value.low):.1f}"
    return f"{100 * value.mean:.1f}{half}"


def fraction(value: Summary) -> str:
    """Three decimals: plan entropies often differ in the second one."""
    return f"{value.mean:.3f}"


def quantity(value: Summary) -> str:
    """Seconds or megabytes with as many digits as tell something."""
    return f"{value.mean:.0f}" if value.mean >= 100 else f"{value.mean:.1f}" if value.mean >= 1 else f"{value.mean:.2f}"


def tables(results: Sequence[Result]) -> list[Table]:
    """All tables that there is something for.

    Accuracy and paired comparisons come for each number of shots, the most first; other tables for the most.

    Parameters
    ----------
    results : sequence of Result
        On one backbone, one for each cell.
    """
    found = []
    few_shot = [result for result in results if result.cell.protocol == FEW_SHOT]
    if few_shot:
        scores, backbone = Scores(few_shot), few_shot[0].backbone
        most = scores.shots[-1]
        accuracies = [accuracy_table(scores, shots, backbone) for shots in reversed(scores.shots)]
        comparisons = [paired_table(scores, shots, _accuracy, "accuracy") for shots in reversed(scores.shots)]
        others = [
            ood_table(scores, most, "auroc", backbone),
            ood_table(scores, most, "fpr95", backbone),
            shift_table(scores, most, backbone),
            transfer_table(scores, most),
            prompts_table(scores, most),
            cost_table(scores, most),
        ]
        found += [*accuracies, *comparisons, *others]
    halves = [result for result in results if result.cell.protocol == BASE_TO_NEW]
    if halves:
        scores = Scores(halves)
        most = scores.shots[-1]
        found += [base_to_new_table(scores, most, name) for name in ("base", "new", "harmonic_mean")]
        found += [paired_table(scores, most, _half("harmonic_mean"), "harmonic mean"), cost_table(scores, most)]
    return [table for table in found if table.rows]


def accuracy_table(scores: Scores, shots: int, backbone: dict[str, Any]) -> Table:
    """Accuracy of each method on each dataset, and the mean over datasets, with published rows."""
    columns = _dataset_columns(scores, shots, _accuracy)
    is_whole = set(scores.datasets) == set(published_columns("accuracy"))
    rows, notes = _published(
        "accuracy",
        [column.name for column in columns if column.name != MEAN or is_whole],
        len(columns),
        lambda method, score, name: published_accuracy(method, name, shots=shots, backbone=backbone),
    )
    return _table(f"Accuracy{_with_shots(shots)} (%)", scores, columns, rows, notes)


def ood_table(scores: Scores, shots: int, metric: Kind, backbone: dict[str, Any]) -> Table:
    """AUROC or FPR95 on each out-of-distribution set, averaged over the datasets that are tested against it."""

    def measure(name: str) -> Measure:
        return lambda result: result.metrics.ood.get(name, {}).get(metric)

    sets = scores.names(lambda result: result.metrics.ood)
    columns = _set_columns(scores, shots, sets, measure, max if metric == "auroc" else min)
    rows, notes = _published_of_imagenet(
        metric,
        sets,
        columns,
        lambda method, score, name: published_ood(
            method, name, metric, score=score, shots=shots, backbone=backbone
        ),
    )
    title = {"auroc": "AUROC, larger is better", "fpr95": "FPR at 95 % TPR, smaller is better"}[metric]
    notes = (f"Score: {Reading().ood_method.upper()}. {_means_over(sets)}", *notes)
    return _table(f"Out-of-distribution detection{_with_shots(shots)}: {title} (%)", scores, columns, rows, notes)


def shift_table(scores: Scores, shots: int, backbone: dict[str, Any]) -> Table:
    """Accuracy on images of the same classes in another style."""
    sets = scores.names(lambda result: result.metrics.shift)
    columns = _set_columns(
        scores, shots, sets, lambda name: lambda result: result.metrics.shift.get(name, {}).get("accuracy"), max
    )
    rows, notes = _published_of_imagenet(
        "shift",
        sets,
        columns,
        lambda method, score, name: published_shift(method, name, shots=shots, backbone=backbone),
    )
    title = f"Accuracy under domain shift{_with_shots(shots)} (%)"
    return _table(title, scores, columns, rows, (_means_over(sets), *notes))


def transfer_table(scores: Scores, shots: int) -> Table:
    """Accuracy on the classes of other datasets."""
    sets = scores.names(lambda result: result.metrics.transfer)
    columns = _set_columns(
        scores, shots, sets, lambda name: lambda result: result.metrics.transfer.get(name, {}).get("accuracy"), max
    )
    title = f"Accuracy on other datasets{_with_shots(shots)} (%)"
    return _table(title, scores, columns, notes=(_means_over(sets),))


def base_to_new_table(scores: Scores, shots: int, name: str) -> Table:
    """``base``, ``new`` or ``harmonic_mean`` on each dataset; the last mean is that of both means, as published.

    References
    ----------
    CoCoOp, arXiv 2203.05557, table 1.
    """
    columns = _dataset_columns(scores, shots, _half(name))
    if name == "harmonic_mean" and len(scores.datasets) > 1:

        def of_means(method: str) -> dict[int, float]:
            base, new = (
                scores.over(method, shots, [(dataset, _half(half)) for dataset in scores.datasets])
                for half in ("base", "new")
            )
            return {seed: harmonic_mean(base[seed], new[seed]) for seed in base if seed in new}

        columns[-1] = Column(MEAN, of_means, percent)
    titles = {
        "base": "Accuracy on base classes, which are trained on",
        "new": "Accuracy on new classes",
        "harmonic_mean": "Harmonic mean of accuracy on base and new classes",
    }
    return _table(f"{titles[name]}{_with_shots(shots)} (%)", scores, columns)


def prompts_table(scores: Scores, shots: int) -> Table:
    """How the local prompts of a class share an image, averaged over datasets."""

    def measure(name: str) -> Measure:
        return lambda result: (result.metrics.prompts or {}).get(name)

    names = {"overlap": "overlap", "dominance": "dominance", "plan_entropy": "plan entropy"}
    columns = [_mean_column(scores, shots, title, measure(name), fraction, None) for name, title in names.items()]
    notes = (
        "Overlap: what two prompts of a class have in common, 1 if they take the same patches alike. Dominance: share "
        "of the mass that the prompt with most of it has. Plan entropy: 1 for a uniform plan. Means over datasets.",
    )
    return _table(f"Local prompts{_with_shots(shots)}", scores, columns, notes=notes, has_interval=False)


def cost_table(scores: Scores, shots: int) -> Table:
    """Seconds and memory of each method, averaged over datasets."""
    measures: dict[str, Measure] = {
        "fit (s)": lambda result: result.cost.fit_seconds,
        "evaluate (s)": lambda result: result.cost.evaluate_seconds,
        "peak memory (MiB)": lambda result: result.cost.peak_memory_mb,
    }
    columns = [_mean_column(scores, shots, title, measure, quantity, min) for title, measure in measures.items()]
    columns.append(
        _mean_column(scores, shots, "threads", lambda result: float(result.cost.threads), lambda value: f"{value.mean:g}", None)
    )
    notes = (
        "Means over datasets. Where encoded images are kept, whichever cell needs them first takes the time to encode "
        "them.",
    )
    return _table(f"Cost of a cell{_with_shots(shots)}", scores, columns, notes=notes, has_interval=False)


def paired_table(scores: Scores, shots: int, measure: Measure, what: str) -> Table:
    """SOT-GLP against each other method, pair by pair; see :func:`sotglp.benchmark.statistics.paired`."""

    def values(method: str) -> dict[tuple[str, int], float]:
        return {
            (dataset, seed): value
            for dataset in scores.datasets
            for seed, value in scores.by_seed(method, dataset, shots, measure).items()
        }

    first = values(REFERENCE)
    compared = [(method, paired(first, values(method))) for method in scores.methods if method != REFERENCE]
    found = [(method, result) for method, result in compared if result is not None]
    rows = []
    p_values, p_ranks = holm([result.p for _, result in found]), holm([result.p_ranks for _, result in found])
    for (method, result), p, p_rank in zip(found, p_values, p_ranks, strict=True):
        difference = Summary(result.difference, result.low, result.high, result.n)
        interval = MISSING
        if result.low is not None and result.high is not None:
            interval = f"{_points(result.low)} to {_points(result.high)}"
        texts = (interval, _p_text(p), _p_text(p_rank), f"{result.n} {result.unit}")
        rows.append((Entry(method), Entry(_points(result.difference), difference), *map(Entry, texts)))
    header = (f"{REFERENCE} against", "difference (points)", "95 % interval", "p, t-test", "p, signed ranks", "pairs")
    notes = (
        "Differences of percentages; above 0, sot-glp is ahead. Both p-values are two-sided and adjusted by Holm for "
        f"the {len(rows)} comparisons; the signed ranks need six pairs. With several datasets a pair is a dataset, its "
        "mean over seeds; with one dataset it is a seed.",
    )
    return Table(f"Paired differences of {what}{_with_shots(shots)}", header, tuple(rows), notes)


def long_rows(results: Sequence[Result]) -> Table:
    """Everything in long form for programs: a line a cell, a column for each number, nothing rounded."""
    flat = [
        _flat({**result.cell.model_dump(), **result.metrics.model_dump(), **result.cost.model_dump()})
        | {f"backbone/{name}": result.backbone.get(name) for name in ("name", "pretrained", "fingerprint")}
        | {"key": result.key}
        for result in sorted(results, key=lambda result: (*map(str, result.cell.model_dump().values()), result.key))
    ]
    header = tuple(dict.fromkeys(name for row in flat for name in row))
    rows = tuple(tuple(Entry("" if row.get(name) is None else str(row[name])) for name in header) for row in flat)
    return Table("Every cell", header, rows)


def to_markdown(table: Table) -> str:
    """A heading, the table and its notes; the best of a column in bold."""
    header = [_markdown(name) for name in table.header]
    rows = [[f"**{_markdown(field.text)}**" if field.is_best else _markdown(field.text) for field in row] for row in table.rows]
    widths = _widths([header, *rows])
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [f"| {' | '.join(line)} |" for line in (_aligned(header, widths), rule, *(_aligned(row, widths) for row in rows))]
    return "\n".join([f"### {_markdown(table.title)}", "", *lines, "", *map(_markdown, table.notes), ""])


def to_text(table: Table) -> str:
    """Aligned columns for a terminal."""
    rows = [list(table.header), *([field.text for field in row] for row in table.rows)]
    widths = _widths(rows)
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    return "\n".join([table.title, "", *lines, "", *table.notes])


def to_csv(table: Table) -> str:
    """Header and rows, without title and notes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([field.text for field in row] for row in table.rows)
    return buffer.getvalue()


def to_latex(table: Table) -> str:
    """A table environment with booktabs' rules; the best of a column in bold."""
    rows = [
        [rf"\textbf{{{_latex(field.text)}}}" if field.is_best else _latex(field.text) for field in row]
        for row in table.rows
    ]
    lines = [" & ".join(row) + r" \\" for row in ([_latex(name) for name in table.header], *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip{{\footnotesize {_latex(note)}\par}}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )
