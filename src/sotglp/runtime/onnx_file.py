"""What an ONNX file is made of, looked at before a runtime may act on it.

The format is protobuf, of which a handful of field numbers is enough; the package ``onnx`` need not be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
"""Of operators that every runtime has; others may stand for code of somebody's own."""

# Field numbers of onnx.proto, by message: those that a search for tensors goes down into.
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
    """What a file says of itself.

    Attributes
    ----------
    metadata : dict
        Its properties.
    domains : frozenset of str
        Where its operators come from.
    has_external_data : bool
        Whether it names other files that hold some of its numbers.
    """

    metadata: dict[str, str]
    domains: frozenset[str]
    has_external_data: bool


def look_through(content: bytes) -> OnnxContent:
    """Look through a model file.

    Parameters
    ----------
    content : bytes
        The whole file.

    Raises
    ------
    ValueError
        If it is no protobuf of that kind.
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
    """Numbers and contents of a message's fields: bytes, or whole numbers; what has a fixed width counts as 0."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _number(message, place)
            yield number, value
        elif wire == 2:
            length, place = _number(message, place)
            if length > len(message) - place:
                raise ValueError("it is cut short")
            yield number, message[place : place + length]
            place += length
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
            yield number, 0
        else:
            raise ValueError("it is no ONNX model")


def _number(message: memoryview, place: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, and the place behind it."""
    value = 0
    for position in range(10):
        if place >= len(message):
            raise ValueError("it is cut short")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, place
    raise ValueError("it is no ONNX model")


def _message(part: memoryview | int) -> memoryview:
    if isinstance(part, int):
        raise ValueError("it is no ONNX model")
    return part


def _text(part: memoryview | bytes | int) -> str:
    return bytes(part).decode("utf-8") if not isinstance(part, int) else ""
