from __future__ import annotations

import os
from pathlib import Path

import pytest

from sotglp import SotglpError
from sotglp.errors import UnknownNameError
from sotglp.files.packaged import packaged_names, read_packaged


def test_files_of_the_package_are_found_by_name() -> None:
    names = packaged_names("presets")
    assert names == sorted(names)
    assert "eurosat" in names
    assert read_packaged("presets", "preset", "eurosat")["training"]["batch_size"] == 10


def test_a_file_of_ones_own_stands_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("training: {epochs: 3}")
    assert read_packaged("presets", "preset", str(tmp_path / "mine.yml")) == {"training": {"epochs": 3}}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"a: [", "can't be read as YAML"), (b"\xff\xfe\x00\xd8", "can't be read as YAML")],
)
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SotglpError, match=message) as raised:
        read_packaged("benchmark/suites", "suite", str(path))
    assert f"the suite file {path}" in str(raised.value)


def test_a_name_that_stands_for_nothing() -> None:
    with pytest.raises(SotglpError, match=r"there is no suite 'few': choose one of ablations, .* or give a YAML file"):
        read_packaged("benchmark/suites", "suite", "few")


def test_an_unknown_name_tells_what_may_have_been_meant() -> None:
    error = UnknownNameError("method", "copo", ["plot", "coop"])
    assert str(error) == "there is no method 'copo' (did you mean coop?): choose one of plot, coop"
    assert str(UnknownNameError("method", "x", ["plot"])) == "there is no method 'x': choose one of plot"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 5000, "nested too deeply"),
        ("a: 2024-99-99", "not of its kind"),
        ("a: !!int x", "not of its kind"),
        ("a: !!bool maybe", "not of its kind"),
        ("a: !!timestamp x", "not of its kind"),
        ("a: " + "9" * 5000, "not of its kind"),
    ],
)
def test_yaml_that_its_reader_fails_on(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SotglpError, match=f"can't be read as YAML: .*{words}"):
        read_packaged("presets", "preset", str(tmp_path / "mine.yaml"))


def test_a_path_that_may_never_end_or_that_no_file_can_have(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in (str(tmp_path / "pipe.yaml"), "nul\0.yaml", "x" * 300 + ".yaml"):
        with pytest.raises(SotglpError, match="can't be read as YAML: "):
            read_packaged("presets", "preset", name)
