"""Predictions as a table for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from sotglp.console.output import PREDICTION_COLUMNS, UNKNOWN
from sotglp.web.answers import Prediction, Unreadable

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet compute a cell instead of showing it."""


def predictions_csv(predictions: Sequence[Prediction | Unreadable]) -> str:
    """A line for each image in its order; the cells behind the name of an image that can't be read are empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(PREDICTION_COLUMNS)
    for one in predictions:
        if isinstance(one, Unreadable):
            writer.writerow([_plain(one.name), "", "", ""])
        else:
            label = UNKNOWN if one.is_unknown else one.label
            writer.writerow([_plain(one.name), _plain(label), one.probability, one.ood_score])
    return buffer.getvalue()


def _plain(text: str) -> str:
    """A cell that shows what it holds: a name such as ``=1+1.png`` came from somebody else."""
    return f"'{text}" if text.startswith(_FORMULA) else text
