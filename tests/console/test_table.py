from __future__ import annotations

import pytest

from sotglp.console.table import WIDEST_ALIGNED, counted, table_lines


def test_columns_are_aligned() -> None:
    lines = table_lines(["image", "share"], [["a.jpg", "5.0%"], ["long name.jpg", "100.0%"]], right=(1,))
    assert lines == ["image           share", "a.jpg            5.0%", "long name.jpg  100.0%"]


def test_wide_letters_and_accents_keep_the_columns() -> None:
    lines = table_lines((), [["\u732b", "1"], ["e\u0301e", "2"], ["ab", "3"]])
    assert lines == ["\u732b  1", "e\u0301e  2", "ab  3"]


def test_a_very_long_cell_moves_its_own_row_only() -> None:
    lines = table_lines((), [["x" * 300, "1"], ["y", "2"]])
    assert lines == ["x" * 300 + "  1", "y" + " " * (WIDEST_ALIGNED + 1) + "2"]


def test_control_characters_are_escaped_before_they_are_measured() -> None:
    assert table_lines((), [["a\x1b", "1"], ["abcde", "2"]]) == ["a\\x1b  1", "abcde  2"]


@pytest.mark.parametrize(("n", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_numbers_have_their_noun(n: int, text: str) -> None:
    assert counted(n, "image") == text
    assert counted(n, "class", "classes") == text.replace("images", "classes").replace("image", "class")


def test_an_empty_table_has_no_lines() -> None:
    assert table_lines((), []) == []
