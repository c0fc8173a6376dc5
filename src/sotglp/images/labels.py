"""Class names from the labels that users pass: text, bytes or whole numbers of Python, NumPy and pandas."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotglp.console.output import UNKNOWN
from sotglp.errors import SotglpError, SotglpWarning, short_repr, some_names

_ADVICE = "give class names as text or whole numbers"

_MISSING_WORDS = frozenset(
    {
        "na",
        "n/a",
        "#n/a",
        "<na>",
        "nan",
        "null",
        "none",
        "nil",
        "nat",
        "undefined",
        "(null)",
        "-",
        "?",
        "#ref!",
        "#value!",
    }
)
_QUOTED = re.compile("b?(['\"\u2018\u201c\u201e`\u00ab]).*['\"\u2019\u201c\u201d`\u00bb]", re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")

INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0]"
    # Joiners are part of words and emoji between two visible characters only.
    "|(?<!\\S)[\u200c\u200d]|[\u200c\u200d](?!\\S)"
)
"""Characters that make two names look equal."""


def label_text(label: object, subject: str = "the label") -> str:
    """Return the class name of a label.

    Whole numbers have no decimal point, bytes are decoded as UTF-8, and text is composed (NFC), since macOS decomposes
    the names of files. Raise a SotglpError about ``subject`` if the label is missing (None or NaN), not a whole number,
    of another type, not UTF-8, or has invisible characters.
    """
    if isinstance(label, str):
        return _composed(str(label), subject)
    if isinstance(label, bytes):
        try:
            return _composed(label.decode(), subject)
        except UnicodeDecodeError as error:
            raise SotglpError(f"{subject} is {short_repr(bytes(label))}, which isn't UTF-8; decode it first") from error
    if isinstance(label, Integral | np.bool_):
        return str(label)
    if label is None or _is_nan(label) or type(label).__name__ in ("NAType", "NaTType"):
        raise SotglpError(f"{subject} is {label}, so it is missing; add a label or leave the image out")
    if not isinstance(label, Real):
        raise SotglpError(f"{subject} is {short_repr(label)} of type {type(label).__name__}; {_ADVICE}")
    number = float(label)
    if not number.is_integer():
        raise SotglpError(f"{subject} is {label}, which isn't a whole number; {_ADVICE}")
    return str(int(number))


def label_array(labels: Any) -> NDArray[Any]:
    """Return labels as an array of text, whole numbers or bools, which can be compared and have different class names.

    A list of text and numbers becomes text, as `numpy.asarray` converts it; bytes are decoded. Raise a SotglpError with
    position and value of the first label that :func:`label_text` rejects, or that is of another kind than the first.
    """
    if not hasattr(labels, "__array__"):
        if isinstance(labels, str | bytes | os.PathLike) or not isinstance(labels, Iterable):
            raise SotglpError(f"the labels are one {type(labels).__name__}; give a list with one label for each image")
        labels = [_decoded(label, i) for i, label in enumerate(labels)]
        # NumPy would make the class "nan" of a missing label among text.
        for i in [i for i, label in enumerate(labels) if _is_nan(label)]:
            label_text(labels[i], f"label {i}")
        # NumPy would make the class "1.0" of 1.0 among text.
        if len({isinstance(label, str) for label in labels}) > 1:
            labels = [label_text(label, f"label {i}") for i, label in enumerate(labels)]
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise SotglpError(f"the labels are not one list or array; {_ADVICE}") from error
    if array.dtype.kind == "S":
        array = np.array([_decoded(label, i) for i, label in enumerate(array.flat)]).reshape(array.shape)
    elif array.dtype.kind == "O":
        array = _of_one_kind(array)
    elif array.dtype.kind not in "Uiub":
        for i, label in enumerate(array.flat):
            label_text(label, f"label {i}")
    return array


def class_names(labels: Any) -> tuple[str, ...]:
    """Return the class name of each label of a list; see :func:`label_array`."""
    if not hasattr(labels, "__array__") and isinstance(labels, Iterable) and not isinstance(labels, str | bytes):
        labels = list(labels)
        if all(isinstance(label, str) for label in labels):
            first = {label: index for index, label in reversed(list(enumerate(labels)))}
            names = {label: label_text(label, f"label {index}") for label, index in first.items()}
            return tuple(names[label] for label in labels)
    array = label_array(labels)
    if array.ndim != 1:
        raise SotglpError(f"the labels have the shape {array.shape}; give a list with one label for each image")
    return tuple(label_text(label, f"label {i}") for i, label in enumerate(array))


def distinct_names(labels: Sequence[Any], subject: str = "class label") -> list[str]:
    """Return the class name of each of C labels; raise a SotglpError about two labels with the same name.

    ``subject`` is what a label is, for messages.
    """
    seen: dict[str, Any] = {}
    for i, label in enumerate(labels):
        name = label_text(label, f"{subject} {i}")
        if name in seen:
            raise SotglpError(
                f"{subject} {list(seen).index(name)}, {seen[name]!a}, and {i}, {label!a}, have the same name; rename "
                "or merge them"
            )
        seen[name] = label
    return list(seen)


def warn_of_names(names: Sequence[str]) -> None:
    """Warn about class names that are only numbers, and about those of :func:`warn_if_reserved`."""
    if names and all(_NUMBER.fullmatch(name) for name in names):
        warnings.warn(
            f"the class names are only numbers, so prompts say 'A photo of a {names[0]}': rename the classes, or give "
            "their names in Python (class_names=), where cross_val_predict, VotingClassifier and others replace labels "
            "by numbers",
            SotglpWarning,
            stacklevel=3,
        )
    if quoted := [name for name in names if is_quoted(name)]:
        warnings.warn(
            f"class names are in quotes, which are part of the prompts: {some_names(quoted)}; remove the quotes",
            SotglpWarning,
            stacklevel=3,
        )
    for name in names:
        warn_if_reserved(name)


def is_quoted(text: str) -> bool:
    """Whether text is in quotes, or is how Python writes bytes (b'cat')."""
    return len(text) > 2 and _QUOTED.fullmatch(text) is not None


def warn_of_missing(labels: Sequence[str], subject: str, positions: Sequence[str] | None = None) -> None:
    """Warn of labels such as NA and nan, which programs write for missing values.

    ``subject`` is what has the labels, for messages; ``positions`` say where each label is.
    """
    words = {label: label.strip().lower() in _MISSING_WORDS for label in set(labels)}
    found = [i for i, label in enumerate(labels) if words[label]]
    if found:
        names = some_names([repr(name) for name in dict.fromkeys(labels[i] for i in found)])
        where = positions[found[0]] if positions else f"image {found[0]}"
        warnings.warn(
            f"{len(found)} of {len(labels)} labels of {subject} are those of missing values ({names}, first in "
            f"{where}), and are used as class names; leave these images out unless they are classes",
            SotglpWarning,
            stacklevel=4,
        )


def warn_if_reserved(name: str) -> None:
    """Warn about a class name that rejected images have as their label."""
    if prompt_name(name).casefold() == UNKNOWN:
        warnings.warn(
            f"the class {name!r} has the label of images that are rejected: rename it, such as to 'other', or tell "
            "them apart by is_unknown (in Python, is_ood)",
            SotglpWarning,
            stacklevel=3,
        )


def prompt_name(class_name: str) -> str:
    """Return a class name as prompts contain it, with spaces for underscores and single spaces between words."""
    return " ".join(class_name.replace("_", " ").split())


def _composed(text: str, subject: str) -> str:
    if not text.strip():
        raise SotglpError(f"{subject} is {text!r}, so it is missing; add a label or leave the image out")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SotglpError(f"{subject} is {text[:100]!a}, which isn't UTF-8; rename the class") from error
    if found := INVISIBLE.search(text):
        raise SotglpError(
            f"{subject} is {text[:100]!a}, which has the invisible character U+{ord(found[0]):04X}; remove it"
        )
    return unicodedata.normalize("NFC", text)


def _decoded(label: object, i: int) -> object:
    return label_text(label, f"label {i}") if isinstance(label, bytes) else label


def _of_one_kind(array: NDArray[Any]) -> NDArray[Any]:
    result = np.empty(array.shape, dtype=object)
    first: object = None
    for i, given in enumerate(array.flat):
        label_text(given, f"label {i}")
        result.flat[i] = label = _decoded(given, i)
        first = label if i == 0 else first
        if _kind(label) is not _kind(first):
            raise SotglpError(
                f"label {i} is {label!r} of type {type(label).__name__}, and label 0 is {first!r} of type "
                f"{type(first).__name__}; give labels of one type"
            )
    return result


def _is_nan(label: object) -> bool:
    return isinstance(label, Real) and bool(label != label)


def _kind(label: object) -> type:
    return str if isinstance(label, str) else bool if isinstance(label, bool | np.bool_) else int
