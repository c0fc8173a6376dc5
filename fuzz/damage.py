"""Hypothesis strategies that damage valid files: their bytes, or one value of their JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

_WORDS = [b"&a ", b"*a", b"<<: ", b"!!int ", b"!!binary ", b"2024-99-99", b"1e999", b".nan", b"\n", b": ", b"[" * 3000]
_NUMBERS = [number.to_bytes(8, "little") for number in (0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)]
_CHUNKS = st.one_of(st.binary(max_size=16), st.sampled_from([*_WORDS, *_NUMBERS]))
# Start as a fraction of the file, number of bytes that are replaced, new bytes.
_EDITS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 4, 200, 10**6]), _CHUNKS), min_size=1, max_size=4)

# Labels, columns and files that are odd in a way that people meet.
_TEXTS = ["", " ", "nan", "NA", "'x'", "b'x'", "1.0", "a\u200b", "e\u0301", "file:///a", ".\\b.png", "\ud800", "train"]
SCALARS = st.sampled_from(_TEXTS) | st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ODD_VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(), SCALARS, max_size=3))


def damaged(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy of damaged copies of seeds; JSON and safetensors files are also damaged by value."""
    by_bytes = st.builds(_edited, st.sampled_from(seeds), _EDITS)
    parsed = [parts for seed in seeds if (parts := _json_of(seed))]
    if not parsed:
        return by_bytes
    return by_bytes | st.builds(_changed, st.sampled_from(parsed), st.integers(0, 10**6), ODD_VALUES)


def _edited(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for position, n_bytes, new in edits:
        start = int(position * len(content))
        content = content[:start] + new + content[start + n_bytes :]
    return content


def _json_of(content: bytes) -> tuple[bytes, bytes] | None:
    """Return the JSON of a JSON or safetensors file, and the tensors behind it."""
    length = int.from_bytes(content[:8], "little")
    for text, tensors in ((content, b""), (content[8 : 8 + length], content[8 + length :])):
        try:
            if isinstance(json.loads(text), dict | list):
                return text, tensors
        except ValueError:
            continue
    return None


def _changed(parts: tuple[bytes, bytes], index: int, value: Any) -> bytes:
    text, tensors = parts
    root = [json.loads(text)]
    metadata = root[0].get("__metadata__", {}) if tensors else {}
    # Metadata of model files are JSON themselves.
    records = {name: json.loads(entry) for name, entry in metadata.items() if entry.startswith(("{", "["))}
    paths = _entries(root) + _entries(records)
    holder, key = paths[index % len(paths)]
    if value == {}:
        del holder[key]
    else:
        holder[key] = value
    metadata.update({name: json.dumps(record) for name, record in records.items()})
    header = json.dumps(root[0] if root else None).encode()
    return len(header).to_bytes(8, "little") + header + tensors if tensors else header


def _entries(holder: Any) -> list[tuple[Any, Any]]:
    """Return every container of a JSON value with each of its indices or keys."""
    found = []
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        found.append((holder, key))
        if isinstance(holder[key], dict | list):
            found += _entries(holder[key])
    return found
