"""Columns of tables with one row per method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sotglp.benchmark.published import MEAN
from sotglp.benchmark.scores import Measure, Part, Scores
from sotglp.benchmark.statistics import Summary, summary
from sotglp.benchmark.table import Entry, Table

MISSING = "–"


@dataclass(frozen=True)
class Column:
    """A column: header, values of a method by seed, format of their mean, and ``max`` or ``min`` if one is best."""

    name: str
    of: Callable[[str], dict[int, float]]
    show: Callable[[Summary], str]
    best: Callable[[list[float]], float] | None


def percent(value: Summary) -> str:
    """Write percent with one decimal, and half of the interval if there is one."""
    half = "" if value.low is None or value.high is None else f" ± {50 * (value.high - value.low):.1f}"
    return f"{100 * value.mean:.1f}{half}"


def fraction(value: Summary) -> str:
    """Write three decimals, since plan entropies differ little."""
    return f"{value.mean:.3f}"


def quantity(value: Summary) -> str:
    """Write seconds or megabytes with about three significant digits."""
    if value.mean >= 100 or value.mean == int(value.mean):
        return f"{value.mean:.0f}"
    return f"{value.mean:.1f}" if value.mean >= 1 else f"{value.mean:.2f}"


def over(scores: Scores, shots: int, parts: Sequence[Part]) -> Callable[[str], dict[int, float]]:
    """Return a function from a method to its values by seed, averaged over parts."""
    return lambda method: scores.over(method, shots, parts)


def dataset_columns(scores: Scores, shots: int, measure: Measure) -> list[Column]:
    """Return a column per dataset, and one for their mean."""
    parts = {dataset: [(dataset, measure)] for dataset in scores.datasets}
    return with_mean(scores, shots, parts, max)


def set_columns(
    scores: Scores,
    shots: int,
    sets: Mapping[str, Sequence[str]],
    measure: Callable[[str], Measure],
    best: Callable[[list[float]], float],
) -> list[Column]:
    """Return a column per additional test set, and one for their mean."""
    parts = {name: [(dataset, measure(name)) for dataset in datasets] for name, datasets in sets.items()}
    return with_mean(scores, shots, parts, best)


def with_mean(
    scores: Scores, shots: int, parts: Mapping[str, list[Part]], best: Callable[[list[float]], float]
) -> list[Column]:
    """Return a column per entry, and one for the mean of all their parts."""
    columns = [Column(name, over(scores, shots, own), percent, best) for name, own in parts.items()]
    if len(columns) > 1:
        every = [part for own in parts.values() for part in own]
        columns.append(Column(MEAN, over(scores, shots, every), percent, best))
    return columns


def table_of(
    title: str,
    scores: Scores,
    columns: Sequence[Column],
    published: tuple[tuple[Entry, ...], ...] = (),
    notes: tuple[str, ...] = (),
    *,
    has_interval: bool = True,
) -> Table:
    """Return a table with a row per method that has a value; published rows come last and are never the best."""
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
    """Cells of a column; all with the same text as the best are the best."""
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
        return "All numbers are of one seed, without intervals."
    seeds = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    note = f"Means over {seeds} seeds; ± is half the 95 % interval by Student's t."
    if any(one.n == 1 for one in summaries):
        note += " Numbers without ± have a single seed or don't depend on it."
    return note
