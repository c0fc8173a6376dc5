"""The record of an exported model: JSON in the metadata of the ONNX file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from sotglp.errors import SotglpError
from sotglp.images.labels import distinct_names
from sotglp.images.value_range import ValueRange, checked_ranges
from sotglp.runtime.preprocessing import Preprocessing

FORMAT_VERSION = 1
METADATA_KEY = "sotglp"
_MOST_SIDE = 4096
_LEAST_TEMPERATURE, _MOST_TEMPERATURE = 1e-6, 1e6


@dataclass(frozen=True)
class PortableRecord:
    """Record of an exported model.

    Attributes
    ----------
    classes : tuple of str, int or float
        C class labels, in the order of the probabilities.
    preprocessing : Preprocessing
        Preprocessing of images.
    patch_grid : tuple of int
        Rows and columns of patches; P is their product.
    ood_method : str
        In-distribution score of the graph; see :func:`sotglp.ood.score`.
    ood_temperature : float
        Temperature of that score.
    threshold : float or None
        Images with a smaller score are rejected; None if the model isn't calibrated for this score.
    calibration : dict or None
        Calibration record of the model file.
    quantized : bool
        Whether weights have 8 bits.
    backbone : dict
        Name, weights and fingerprint of the backbone.
    versions : dict
        Versions of the packages that wrote the file.
    value_ranges : dict
        Black and white of gray images with more than 8 bits, by kind; see :mod:`sotglp.images.value_range`.
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
    value_ranges: dict[str, ValueRange] = field(default_factory=dict)


def parse_record(text: str) -> PortableRecord:
    """Parse and validate the JSON.

    Raises
    ------
    ValueError
        If it is invalid or written by a newer sotglp.
    """
    try:
        raw = json.loads(text)
        if type(raw["format_version"]) is not int or raw["format_version"] != FORMAT_VERSION:
            raise ValueError(f"it has format {raw['format_version']!r:.20}, and this sotglp reads {FORMAT_VERSION}")
        threshold = raw["threshold"]
        record = PortableRecord(
            classes=tuple(raw["classes"]),
            preprocessing=_preprocessing(raw["preprocessing"]),
            patch_grid=_pair(raw["patch_grid"]),
            ood_method=_of(str, raw["ood_method"]),
            ood_temperature=_temperature(raw["ood_temperature"]),
            threshold=None if threshold is None else _finite(threshold),
            calibration=raw["calibration"] and _of(dict, raw["calibration"]),
            quantized=_of(bool, raw["quantized"]),
            backbone=_of(dict, raw["backbone"]),
            versions=_of(dict, raw["versions"]),
            value_ranges=checked_ranges(raw.get("value_ranges", {})),
        )
        if not record.classes or not all(type(label) in (str, int, float) for label in record.classes):
            raise ValueError("class labels")
        distinct_names(record.classes)
    except SotglpError as error:
        raise ValueError(f"its record is damaged ({error})") from error
    except KeyError as error:
        raise ValueError(f"its record lacks {error}") from error
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError("its record is damaged") from error
    return record


def _preprocessing(raw: Any) -> Preprocessing:
    known = {"interpolation": ("bicubic", "bilinear", "random"), "resize_mode": ("shortest", "longest", "squash")}
    for name, choices in known.items():
        if raw[name] not in choices:
            raise ValueError(f"its {name} is unknown")
    if raw["mode"] != "RGB":
        raise ValueError("its images are not RGB")
    fill = raw["fill_color"]
    if type(fill) is not int or not 0 <= fill <= 255:
        raise ValueError("its fill_color is not a gray value")
    std = _colours(raw["std"])
    if min(std) <= 0:
        raise ValueError("its std is not above 0")
    size = _pair(raw["size"])
    return Preprocessing(size, _colours(raw["mean"]), std, raw["interpolation"], raw["resize_mode"], fill)


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(kind.__name__)
    return value


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError("number")
    return float(value)


def _temperature(value: Any) -> float:
    temperature = _finite(value)
    if not _LEAST_TEMPERATURE <= temperature <= _MOST_TEMPERATURE:
        raise ValueError("its ood_temperature is out of range")
    return temperature


def _colours(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(_finite, values)
    return red, green, blue


def _pair(values: Any) -> tuple[int, int]:
    rows, columns = values
    if not all(type(value) is int and 1 <= value <= _MOST_SIDE for value in (rows, columns)):
        raise ValueError("a size is out of range")
    return rows, columns
