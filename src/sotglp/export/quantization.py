"""Weights of an exported graph in 8 bits."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sotglp.export.graph import INPUT

if TYPE_CHECKING:
    import onnx


def quantize_products(file: onnx.ModelProto) -> onnx.ModelProto:
    """Quantize products with constant matrices, except cosines; activations are quantized when the file runs."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        quantize_dynamic(
            file,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_comparisons(file),
        )
        return onnx.load(target)


def quantize_convolutions(file: onnx.ModelProto, batches: Iterable[NDArray[np.float32]]) -> onnx.ModelProto:
    """Quantize all convolutions but the first, and their inputs, whose ranges are measured on preprocessed ``batches``.

    Weights have 7 bits, since sums of products with 8 overflow on processors without VNNI instructions. The first
    convolution has few weights, and 8 bits there cost most accuracy: a linear probe on EfficientNet-Lite0 loses 2.9
    points on RSSCN7 without it, and 7.1 with it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        quantize_static(
            file,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=[next(node.name for node in file.graph.node if node.op_type == "Conv")],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnxruntime's advice to prepare a graph, which the exporter's optimizer did."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _comparisons(file: onnx.ModelProto) -> list[str]:
    """Return the products after the first norm of a feature: cosines, which need more than 8 bits."""
    dependent: set[str] = set()
    found = []
    for node in file.graph.node:
        if node.op_type == "ReduceL2" or not dependent.isdisjoint(node.input):
            dependent.update(node.output)
            found += [node.name] if node.op_type == "MatMul" else []
    return found
