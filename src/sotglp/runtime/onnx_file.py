"""Inspection of an ONNX file before a runtime loads it, by a few protobuf fields and without the package ``onnx``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
"""Domains of standard operators; others may run custom code."""

# Field numbers of onnx.proto, by message, on the paths to tensors.
_MODEL = {7: "graph", 25: "function"}
_BELOW = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_MODEL_METADATA, _MODEL_OPSETS = 14, 8
_NODE_DOMAIN, _TENSOR_ELSEWHERE, _TENSOR_LOCATION = 7, 13, 14
_KEY, _VALUE = 1, 2
_DEEPEST = 32


class OnnxContent(NamedTuple):
    """Findings about a file.

    Attributes
    ----------
    metadata : dict
        Metadata properties.
    domains : frozenset of str
        Domains of its operators.
    has_external_data : bool
        Whether some tensors are in other files.
    """

    metadata: dict[str, str]
    domains: frozenset[str]
    has_external_data: bool


def look_through(content: bytes) -> OnnxContent:
    """Inspect the bytes of a model file.

    Raises
    ------
    ValueError
        If it isn't an ONNX model.
    """
    metadata: dict[str, str] = {}
    domains: set[str] = set()
    external = False
    pending: list[tuple[str, memoryview, int]] = []
    for number, part in _fields(memoryview(content)):
        if number == _MODEL_METADATA:
            entry = dict(_fields(_message(part)))
            metadata[_text(entry.get(_KEY, b""))] = _text(entry.get(_VALUE, b""))
        elif number == _MODEL_OPSETS:
            domains.add(_text(dict(_fields(_message(part))).get(1, b"")))
        elif number in _MODEL:
            pending.append((_MODEL[number], _message(part), 0))
    while pending:
        kind, message, depth = pending.pop()
        if depth > _DEEPEST:
            raise ValueError("its graphs are nested too deeply")
        below = _BELOW.get(kind, {})
        for number, part in _fields(message):
            if kind == "node" and number == _NODE_DOMAIN:
                domains.add(_text(part))
            elif kind == "tensor" and (number == _TENSOR_ELSEWHERE or (number == _TENSOR_LOCATION and part == 1)):
                external = True
            elif number in below:
                pending.append((below[number], _message(part), depth + 1))
    return OnnxContent(metadata, frozenset(domains), external)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield field numbers and contents of a message: bytes or integers; fixed-width values are 0."""
    position = 0
    while position < len(message):
        key, position = _number(message, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _number(message, position)
            yield number, value
        elif wire == 2:
            length, position = _number(message, position)
            if length > len(message) - position:
                raise ValueError("it is cut short")
            yield number, message[position : position + length]
            position += length
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
            yield number, 0
        else:
            raise ValueError("it is not an ONNX model")


def _number(message: memoryview, position: int) -> tuple[int, int]:
    """Decode a varint, and return it with the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it is cut short")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("it is not an ONNX model")


def _message(part: memoryview | int) -> memoryview:
    if isinstance(part, int):
        raise ValueError("it is not an ONNX model")
    return part


def _text(part: memoryview | bytes | int) -> str:
    return bytes(part).decode("utf-8") if not isinstance(part, int) else ""
