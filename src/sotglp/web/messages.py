"""Messages between the server and its decoding processes: a JSON header and bytes, with their lengths before them.

The processes decode files of strangers, so nothing that they answer may be code, as a pickle is.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

_LENGTHS = struct.Struct("<QQ")
_MAX_HEADER = 2**20


class Message(NamedTuple):
    """A header with JSON values, and bytes."""

    header: dict[str, Any]
    body: bytes = b""


def write_message(stream: BinaryIO, header: Mapping[str, Any], body: bytes = b"") -> None:
    """Write a message to a pipe."""
    encoded = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(encoded), len(body)))
    stream.write(encoded)
    stream.write(body)
    stream.flush()


def read_message(stream: BinaryIO, max_body: int | None = None) -> Message:
    """Read a message from a pipe.

    Raises
    ------
    EOFError
        If the pipe ends before the message.
    ValueError
        If it is no message, or larger than allowed.
    """
    n_header, n_body = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    if n_header > _MAX_HEADER or (max_body is not None and n_body > max_body):
        raise ValueError("the message is too large")
    try:
        header = json.loads(_exactly(stream, n_header))
    except RecursionError as error:
        raise ValueError("the header has too many levels") from error
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    return Message(header, _exactly(stream, n_body))


def _exactly(stream: BinaryIO, n: int) -> bytes:
    content = stream.read(n)
    if len(content) < n:
        raise EOFError
    return content
