from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotglp.console.text import printable, readable_size


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("golden_retriever", "golden_retriever"),
        ("Größe 日本 عربى हिन्दी", "Größe 日本 عربى हिन्दी"),
        ("family \U0001f468‍\U0001f469‍\U0001f467", "family \U0001f468‍\U0001f469‍\U0001f467"),
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("cat\r\nsotglp: done", r"cat\r\nsotglp: done"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202etxt.exe", r"a\u202etxt.exe"),
        ("line\u2028break", r"line\u2028break"),
        ("photo\udcff.jpg", r"photo\udcff.jpg"),
        ("tab\t.", r"tab\t."),
        ("", ""),
    ],
)
def test_what_a_terminal_obeys_is_written_out_and_letters_stay(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_whatever_comes_can_be_printed_on_one_line(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (303104, "296.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (1_900_000_000, "1.8 GiB"),
        (2**40, "1.0 TiB"),
        (2**52, "4096.0 TiB"),
    ],
)
def test_sizes_for_people(n_bytes: int, text: str) -> None:
    assert readable_size(n_bytes) == text
