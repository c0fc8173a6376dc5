"""The tables of a benchmark, from results to Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
from sotglp.config import OodMethod, Reading

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
    best: Callable[[list[float]], float] | None


def percent(value: Summary) -> str:
    """Percent with one decimal, and half of the interval where there is one."""
    half = "" if value.low is None or value.high is None else f" ± {50 * (value.high - value.low):.1f}"
    return f"{100 * value.mean:.1f}{half}"


def fraction(value: Summary) -> str:
    """Three decimals: plan entropies often differ in the second one."""
    return f"{value.mean:.3f}"


def quantity(value: Summary) -> str:
    """Seconds or megabytes with as many digits as tell something."""
    if value.mean >= 100 or value.mean == int(value.mean):
        return f"{value.mean:.0f}"
    return f"{value.mean:.1f}" if value.mean >= 1 else f"{value.mean:.2f}"


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
    """Accuracy of each method on each dataset, and the mean over datasets, with published rows."""
    columns = _dataset_columns(scores, shots, _accuracy)

    def look_up(method: str, score: OodMethod | None, name: str) -> Published | None:
        return published_accuracy(method, name, shots=shots, backbone=backbone)

    rows, notes = _published("accuracy", columns, look_up)
    return _table(f"Accuracy{_with_shots(shots)} (%)", scores, columns, rows, notes)


def ood_table(scores: Scores, shots: int, metric: Literal["auroc", "fpr95"], backbone: dict[str, Any]) -> Table:
    """AUROC or FPR95 on each out-of-distribution set, averaged over the datasets that are tested against it."""

    def measure(name: str) -> Measure:
        return lambda result: result.metrics.ood.get(name, {}).get(metric)

    sets = scores.names(lambda result: result.metrics.ood)
    columns = _set_columns(scores, shots, sets, measure, max if metric == "auroc" else min)

    def look_up(method: str, score: OodMethod | None, name: str) -> Published | None:
        return published_ood(method, name, metric, score=score, shots=shots, backbone=backbone)

    rows, notes = _published(metric, columns, look_up) if _is_of_imagenet(sets) else ((), ())
    title = {"auroc": "AUROC, larger is better", "fpr95": "FPR at 95 % TPR, smaller is better"}[metric]
    notes = (f"Measured with the score {Reading().ood_method.upper()}. {_trained_on(sets)}", *notes)
    return _table(f"Out-of-distribution detection{_with_shots(shots)}: {title} (%)", scores, columns, rows, notes)


def shift_table(scores: Scores, shots: int, backbone: dict[str, Any]) -> Table:
    """Accuracy on images of the same classes in another style."""
    sets = scores.names(lambda result: result.metrics.shift)
    columns = _set_columns(
        scores, shots, sets, lambda name: lambda result: result.metrics.shift.get(name, {}).get("accuracy"), max
    )

    def look_up(method: str, score: OodMethod | None, name: str) -> Published | None:
        return published_shift(method, name, shots=shots, backbone=backbone)

    rows, notes = _published("shift", columns, look_up) if _is_of_imagenet(sets) else ((), ())
    title = f"Accuracy under domain shift{_with_shots(shots)} (%)"
    return _table(title, scores, columns, rows, (_trained_on(sets), *notes))


def transfer_table(scores: Scores, shots: int) -> Table:
    """Accuracy on the classes of other datasets."""
    sets = scores.names(lambda result: result.metrics.transfer)
    columns = _set_columns(
        scores, shots, sets, lambda name: lambda result: result.metrics.transfer.get(name, {}).get("accuracy"), max
    )
    title = f"Accuracy on other datasets{_with_shots(shots)} (%)"
    return _table(title, scores, columns, notes=(_trained_on(sets),))


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

        columns[-1] = Column(MEAN, of_means, percent, max)
    titles = {
        "base": "Accuracy on base classes",
        "new": "Accuracy on new classes",
        "harmonic_mean": "Harmonic mean of accuracy on base and new classes",
    }
    return _table(f"{titles[name]}{_with_shots(shots)} (%)", scores, columns)


def prompts_table(scores: Scores, shots: int) -> Table:
    """How the local prompts of a class share an image, averaged over datasets."""

    def measure(name: str) -> Measure:
        return lambda result: (result.metrics.prompts or {}).get(name)

    names = {"overlap": "overlap", "dominance": "dominance", "plan_entropy": "plan entropy"}
    columns = [
        Column(title, _over(scores, shots, [(dataset, measure(name)) for dataset in scores.datasets]), fraction, None)
        for name, title in names.items()
    ]
    notes = (
        "Overlap: what two prompts of a class have in common, 1 if they take the same patches alike. Dominance: share "
        "of the mass that the prompt with most of it has. Plan entropy: 1 for a uniform plan. Means over datasets.",
    )
    return _table(f"Local prompts{_with_shots(shots)}", scores, columns, notes=notes, has_interval=False)


def cost_table(scores: Scores, shots: int, protocol: str) -> Table:
    """Seconds and memory of each method, averaged over datasets."""
    measures: dict[str, Measure] = {
        "fit (s)": lambda result: result.cost.fit_seconds,
        "evaluate (s)": lambda result: result.cost.evaluate_seconds,
        "peak memory (MiB)": lambda result: result.cost.peak_memory_mb,
        "threads": lambda result: result.cost.threads,
    }
    columns = [
        Column(
            title,
            _over(scores, shots, [(dataset, measure) for dataset in scores.datasets]),
            quantity,
            None if title == "threads" else min,
        )
        for title, measure in measures.items()
    ]
    notes = (
        "Means over datasets. Where encoded images are kept, whichever cell needs them first takes the time to encode "
        "them.",
    )
    return _table(f"Cost of a {protocol} cell{_with_shots(shots)}", scores, columns, notes=notes, has_interval=False)


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
        "Differences of percentages; above 0, sot-glp is ahead. With several datasets a pair is a dataset, its mean "
        "over seeds; with one dataset it is a seed. The signed ranks need six pairs. Both p-values are two-sided and "
        "adjusted by Holm for the comparisons of this table, intervals are not.",
    )
    return Table(f"Paired differences of {what}{_with_shots(shots)}", header, tuple(rows), notes)


def long_rows(results: Sequence[Result]) -> Table:
    """Everything in long form for programs: a line a cell, a column for each number, nothing rounded."""
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
    # Names with a slash depend on what was measured and come last.
    header = tuple(sorted(names, key=lambda name: (name, 0) if "/" in name else ("", names.index(name))))
    rows = tuple(tuple(Entry(str(row.get(name, ""))) for name in header) for row in flat)
    return Table("Every cell", header, rows)


def to_markdown(table: Table) -> str:
    """A heading, the table and its notes; the best of a column in bold."""
    header = [markdown_text(name) for name in table.header]
    rows = [
        [f"**{markdown_text(field.text)}**" if field.is_best else markdown_text(field.text) for field in row]
        for row in table.rows
    ]
    widths = _widths([header, *rows])
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        f"| {' | '.join(line)} |" for line in (_aligned(header, widths), rule, *(_aligned(row, widths) for row in rows))
    ]
    return "\n".join(
        [f"### {markdown_text(table.title)}", "", *lines, "", *(f"{markdown_text(note)}\n" for note in table.notes)]
    )


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


def _accuracy(result: Result) -> float | None:
    return result.metrics.accuracy


def _half(name: str) -> Measure:
    return lambda result: (result.metrics.base_to_new or {}).get(name)


def _over(scores: Scores, shots: int, parts: Sequence[Part]) -> Callable[[str], dict[int, float]]:
    return lambda method: scores.over(method, shots, parts)


def _dataset_columns(scores: Scores, shots: int, measure: Measure) -> list[Column]:
    """A column for each dataset, and one for their mean."""
    parts = {dataset: [(dataset, measure)] for dataset in scores.datasets}
    return _with_mean(scores, shots, parts, max)


def _set_columns(
    scores: Scores,
    shots: int,
    sets: Mapping[str, Sequence[str]],
    measure: Callable[[str], Measure],
    best: Callable[[list[float]], float],
) -> list[Column]:
    """A column for each set that results measure besides, and one for their mean."""
    parts = {name: [(dataset, measure(name)) for dataset in datasets] for name, datasets in sets.items()}
    return _with_mean(scores, shots, parts, best)


def _with_mean(
    scores: Scores, shots: int, parts: Mapping[str, list[Part]], best: Callable[[list[float]], float]
) -> list[Column]:
    columns = [Column(name, _over(scores, shots, own), percent, best) for name, own in parts.items()]
    if len(columns) > 1:
        every = [part for own in parts.values() for part in own]
        columns.append(Column(MEAN, _over(scores, shots, every), percent, best))
    return columns


def _table(
    title: str,
    scores: Scores,
    columns: Sequence[Column],
    published: tuple[tuple[Entry, ...], ...] = (),
    notes: tuple[str, ...] = (),
    *,
    has_interval: bool = True,
) -> Table:
    """A row for each method that has anything in the columns; published rows come last and are never the best."""
    by_column = [[column.of(method) for method in scores.methods] for column in columns]
    summaries = [[summary(list(values.values())) if values else None for values in each] for each in by_column]
    fields = [_entries(column, each) for column, each in zip(columns, summaries, strict=True)]
    measured = [
        (Entry(method), *row)
        for method, *row in zip(scores.methods, *fields, strict=True)
        if any(field.summary is not None for field in row)
    ]
    found = [field for row in measured for field in row[1:]]
    if has_interval and found:
        notes = (_interval_note([field.summary for field in found if field.summary is not None]), *notes)
    if any(field.summary is None for field in found):
        notes = (*notes, f"{MISSING}: not measured; a mean needs all of its parts.")
    header = ("method", *(column.name for column in columns))
    return Table(title, header, (*measured, *published), notes)


def _entries(column: Column, summaries: Sequence[Summary | None]) -> list[Entry]:
    """Fields of a column; all that read like the best are the best."""
    shown = [None if one is None else float(column.show(Summary(one.mean, None, None, 1))) for one in summaries]
    present = [value for value in shown if value is not None]
    best = column.best(present) if column.best and len(present) > 1 else None
    return [
        Entry(MISSING) if one is None else Entry(column.show(one), one, value is not None and value == best)
        for one, value in zip(summaries, shown, strict=True)
    ]


def _interval_note(summaries: Sequence[Summary]) -> str:
    numbers = sorted({one.n for one in summaries if one.n > 1})
    if not numbers:
        return "Every number is of one seed, so that there is no interval."
    seeds = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    note = f"Means over {seeds} seeds; ± is half of the 95 % interval of Student's t."
    if any(one.n == 1 for one in summaries):
        note += " Numbers without it depend on no seed, or have one."
    return note


def _published(
    kind: Kind, columns: Sequence[Column], look_up: Callable[[str, OodMethod | None, str], Published | None]
) -> tuple[tuple[tuple[Entry, ...], ...], tuple[str, ...]]:
    """Published rows under measured columns, and what to say of them; the mean only below all of its columns."""
    names = [column.name for column in columns]
    is_whole = set(names) - {MEAN} == set(published_columns(kind))
    rows, methods, remarks = [], dict[str, list[str]](), []
    for method, score in published_rows(kind):
        found = [look_up(method, score, name) if name != MEAN or is_whole else None for name in names]
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
    notes = (f"Published, on whole test sets, with their own training: {sources}.", *remarks) if rows else ()
    return tuple(rows), notes


def _is_of_imagenet(sets: Mapping[str, Sequence[str]]) -> bool:
    """Whether published numbers of ImageNet's models may stand beside these."""
    return all(tuple(datasets) == ("imagenet",) for datasets in sets.values())


def _trained_on(sets: Mapping[str, Sequence[str]]) -> str:
    """Which models were tested on which set, shortly where it is the same for all."""
    groups = {tuple(datasets) for datasets in sets.values()}
    if len(groups) <= 1:
        return f"Trained on {', '.join(next(iter(groups), ()))}."
    each = "; ".join(f"{name} ({', '.join(datasets)})" for name, datasets in sets.items())
    return f"Each set, and the datasets trained on: {each}."


def _with_shots(shots: int) -> str:
    return "" if shots == ANY else f" with {shots} {'shot' if shots == 1 else 'shots'}"


def _points(value: float) -> str:
    """Percentage points with a sign; what rounds to nothing has a plus."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _p_text(p: float | None) -> str:
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested names joined by slashes, without what is None."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{name}/")
        elif value is not None:
            flat[f"{above}{name}"] = value
    return flat


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(3, *map(len, column)) for column in zip(*rows, strict=True)]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The name to the left, numbers to the right."""
    return [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]


def markdown_text(text: str) -> str:
    """Text as Markdown, in which nothing is markup, on one line."""
    return re.sub(r"[\\`*|\[]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        "<": "$<$",
        ">": "$>$",
        # LaTeX takes these two behind the end of a row for a part of it.
        "[": "{[}",
        "*": "{*}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


def _latex(text: str) -> str:
    """Text in which nothing is a command, on one line."""
    return " ".join(text.split()).translate(_LATEX)
