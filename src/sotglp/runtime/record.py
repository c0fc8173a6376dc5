"""What an exported file tells of itself: one JSON among its properties."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from sotglp.runtime.preprocessing import Preprocessing

FORMAT_VERSION = 1
METADATA_KEY = "sotglp"
_MOST_SIDE = 4096


@dataclass(frozen=True)
class PortableRecord:
    """What an exported file tells beside its graph.

    Attributes
    ----------
    classes : tuple of str, int or float
        Class labels, C of them, in the order of the probabilities.
    preprocessing : Preprocessing
        How an image becomes the graph's input.
    patch_grid : tuple of int
        Rows and columns of patches; P is their product.
    ood_method : str
        Score in the file; see :func:`sotglp.ood.score`.
    ood_temperature : float
        Temperature of that score.
    threshold : float or None
        Images with a smaller score are of none of the classes; None if the model is not calibrated for this score.
    calibration : dict or None
        All that the model file told of its calibration.
    quantized : bool
        Whether weights are in eight bits.
    backbone : dict
        Name, weights and fingerprint of the backbone.
    versions : dict
        What wrote the file.
    """

    classes: tuple[str | int | float, ...]
    preprocessing: Preprocessing
    patch_grid: tuple[int, int]
    ood_method: str
    ood_temperature: float
    threshold: float | None
    calibration: dict[str, Any] | None
    quantized: bool
    backbone: dict[str, Any]
    versions: dict[str, str]


def parse_record(text: str) -> PortableRecord:
    """Read the JSON.

    Raises
    ------
    ValueError
        If it says something else than :class:`PortableRecord` can hold, or comes from a newer sotglp.
    """
    try:
        told = json.loads(text)
        if told["format_version"] != FORMAT_VERSION:
            raise ValueError(f"it has format {told['format_version']!r:.20}, and this sotglp reads {FORMAT_VERSION}")
        threshold = told["threshold"]
        record = PortableRecord(
            classes=tuple(told["classes"]),
            preprocessing=_preprocessing(told["preprocessing"]),
            patch_grid=_pair(told["patch_grid"]),
            ood_method=_of(str, told["ood_method"]),
            ood_temperature=_finite(told["ood_temperature"]),
            threshold=None if threshold is None else _finite(threshold),
            calibration=told["calibration"] and _of(dict, told["calibration"]),
            quantized=_of(bool, told["quantized"]),
            backbone=_of(dict, told["backbone"]),
            versions=_of(dict, told["versions"]),
        )
        if not record.classes or not all(type(label) in (str, int, float) for label in record.classes):
            raise ValueError("class labels")
    except KeyError as error:
        raise ValueError(f"its record lacks {error}") from error
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError("its record is damaged") from error
    return record


def _preprocessing(told: Any) -> Preprocessing:
    known = {"interpolation": ("bicubic", "bilinear", "random"), "resize_mode": ("shortest", "longest", "squash")}
    for name, choices in known.items():
        if told[name] not in choices:
            raise ValueError(f"its {name} is unknown")
    if told["mode"] != "RGB":
        raise ValueError("its images are not RGB")
    fill = told["fill_color"]
    if type(fill) is not int or not 0 <= fill <= 255:
        raise ValueError("its fill_color is no gray")
    std = _colours(told["std"])
    if min(std) <= 0:
        raise ValueError("a deviation of its colours is not above 0")
    size = _pair(told["size"])
    return Preprocessing(size, _colours(told["mean"]), std, told["interpolation"], told["resize_mode"], fill)


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(kind.__name__)
    return value


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError("number")
    return float(value)


def _colours(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(_finite, values)
    return red, green, blue


def _pair(values: Any) -> tuple[int, int]:
    rows, columns = values
    if not all(type(value) is int and 1 <= value <= _MOST_SIDE for value in (rows, columns)):
        raise ValueError("a size is out of range")
    return rows, columns
