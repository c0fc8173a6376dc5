"""Damage to bytes, to JSON and to safetensors files, drawn from a generator: the same generator, the same damage."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

MOST_BYTES = 2**16

_ODD_INTEGERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_DEEP = "@deep"
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, float("inf"), float("nan"), 1e400, -0.0),
    *("", " ", "x" * 5000, "\ud800", "\0", "é", "..", "/", "1", "nan", _DEEP, [], {}, [[]], {"": {}}, [0] * 1000),
)
_YAML_WORDS = (
    *(b"&a ", b"*a", b"<<: ", b"!!int ", b"!!float ", b"!!bool ", b"!!timestamp ", b"!!binary ", b"!!set ", b"? "),
    *(b"2024-99-99", b"0x", b"1e999", b".inf", b".nan", b"---\n", b"...\n", b"|\n", b">\n", b"null", b"[" * 3000),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b": ",
        b"- ",
        b"\n",
        b"\t",
        b"'",
        b'"',
        b"#",
        b"%",
        b"@",
        b"\xff",
        b"\0",
        b"\xef\xbb\xbf",
    ),
)


def damage_bytes(content: bytes, draw: random.Random) -> bytes:
    """Change, insert, repeat or remove a few pieces anywhere."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        _damage_once(changed, draw)
    return bytes(changed[:MOST_BYTES])


def damage_text(content: bytes, draw: random.Random) -> bytes:
    """As :func:`damage_bytes`, and put in words that YAML reads in a way of its own."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        start = draw.randint(0, len(changed))
        if draw.random() < 0.7:
            changed[start : start + draw.choice((0, 0, 1, 4, 10))] = draw.choice(_YAML_WORDS)
        else:
            _damage_once(changed, draw)
    return bytes(changed[:MOST_BYTES])


def damage_json(content: bytes, draw: random.Random) -> bytes:
    """Change values and names of a JSON text, or its bytes."""
    if draw.random() < 0.2:
        return damage_bytes(content, draw)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return damage_bytes(content, draw)
    return _damaged_json(value, draw)[:MOST_BYTES]


def damage_safetensors(content: bytes, draw: random.Random) -> bytes:
    """Change the length field, the header, a JSON record among its metadata, or the tensors of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    header, tensors = content[8 : 8 + length], content[8 + length :]
    part = draw.random()
    if part < 0.1:
        return draw.choice(_ODD_INTEGERS).to_bytes(8, "little") + header + tensors
    if part < 0.3:
        return content[: 8 + length] + damage_bytes(tensors, draw)
    try:
        fields = json.loads(header)
        if part < 0.7:
            name = draw.choice(sorted(fields["__metadata__"]))
            record = json.loads(fields["__metadata__"][name])
            fields["__metadata__"][name] = _damaged_json(record, draw).decode()
            header = json.dumps(fields).encode()
        else:
            header = _damaged_json(fields, draw)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return damage_bytes(content, draw)
    return len(header).to_bytes(8, "little") + header + tensors


def _damage_once(content: bytearray, draw: random.Random) -> None:
    start = draw.randint(0, len(content))
    length = draw.choice((1, 1, 2, 4, 8, draw.randint(1, 200)))
    match draw.randrange(6):
        case 0:
            content[start : start + 1] = bytes([draw.randrange(256)])
        case 1:
            size = draw.choice((1, 2, 4, 8))
            number = draw.choice(_ODD_INTEGERS) % 2 ** (8 * size)
            content[start : start + size] = number.to_bytes(size, draw.choice(("little", "big")))
        case 2:
            content[start:start] = draw.randbytes(length)
        case 3:
            del content[start : start + length]
        case 4:
            source = draw.randint(0, len(content))
            content[start:start] = content[source : source + length]
        case _:
            del content[start if draw.random() < 0.3 else len(content) :]


def _damaged_json(value: Any, draw: random.Random) -> bytes:
    root = [value]
    for _ in range(draw.choice((1, 1, 2, 3))):
        holder, key = draw.choice(_places(root))
        match draw.randrange(4):
            case 0 if holder is not root:
                del holder[key]
            case 1:
                other, other_key = draw.choice(_places(root))
                # A copy, or a value could come to hold itself.
                holder[key] = json.loads(json.dumps(other[other_key]))
            case 2 if isinstance(holder, dict):
                holder[str(draw.choice(_ODD_VALUES))] = holder.pop(key)
            case _:
                holder[key] = copy.deepcopy(draw.choice(_ODD_VALUES))
    return json.dumps(root[0]).replace(f'"{_DEEP}"', "[" * 3000 + "]" * 3000).encode()


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """Every place that holds a value: a list with a position, or a mapping with a name."""
    places: list[tuple[Any, Any]] = []
    pending: list[Any] = [root]
    while pending:
        holder = pending.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            places.append((holder, key))
            if isinstance(holder[key], list | dict):
                pending.append(holder[key])
    return places
