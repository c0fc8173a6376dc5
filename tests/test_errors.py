import pytest

from sotglp.errors import short_repr


@pytest.mark.parametrize("value", ["text", 3, -1.5, None, True, [1, "a"], {"a": [2]}, float("nan"), "half \ud800"])
def test_short_values_are_shown_as_python_writes_them(value):
    assert short_repr(value) == repr(value)


def test_long_deep_and_endless_values_are_cut():
    endless: list[object] = []
    endless.append(endless)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    wide = ["l"]
    for _ in range(30):
        wide = [wide] * 10
    for value in ("x" * 10**6, endless, deep, wide, dict.fromkeys(range(10**5)), 10**4000, b"x" * 10**6):
        assert len(short_repr(value)) < 300


def test_whole_numbers_that_python_does_not_write_out():
    assert short_repr(1 << 40_000) == "a whole number of 40001 bits"
