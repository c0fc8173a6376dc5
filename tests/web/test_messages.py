"""Messages of the decoding processes."""

from __future__ import annotations

import io
import struct

import pytest

from sotglp.web.messages import Message, read_message, write_message


def encoded(*message: object) -> bytes:
    stream = io.BytesIO()
    write_message(stream, *message)  # type: ignore[arg-type]
    return stream.getvalue()


def test_messages_follow_each_other() -> None:
    stream = io.BytesIO(encoded({"a": "ü\ud800", "b": [1, None]}, b"xyz") + encoded({}))
    assert read_message(stream) == Message({"a": "ü\ud800", "b": [1, None]}, b"xyz")
    assert read_message(stream, 0) == Message({}, b"")
    with pytest.raises(EOFError):
        read_message(stream)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 25])
def test_a_message_that_ends_early(n: int) -> None:
    with pytest.raises(EOFError):
        read_message(io.BytesIO(encoded({"a": 1}, b"xyz")[:n]))


@pytest.mark.parametrize(
    "content",
    [
        encoded({}, b"xyz"),
        struct.pack("<QQ", 2**40, 0),
        struct.pack("<QQ", 2, 2**63),
        struct.pack("<QQ", 2, 0) + b"[]",
        struct.pack("<QQ", 2, 0) + b"\xff\xff",
        struct.pack("<QQ", 200_000, 0) + b"[" * 200_000,
    ],
)
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"too|decode|object"):
        read_message(io.BytesIO(content), 2)
