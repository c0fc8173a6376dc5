from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from sotglp.images.paths import find_file, is_remote, local_path, why_missing

COMPOSED = "caf\u00e9"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a b.png", f"{DECOMPOSED}/x.png", f"{COMPOSED}.png", f"{DECOMPOSED}/{COMPOSED}.png", "%41.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_addresses_of_files(folder: Path) -> None:
    for address in ("file:///a%20b.png", "file://localhost/a%20b.png", "file:/a%20b.png", "FILE:///a b.png"):
        assert local_path(address) == "/a b.png"
    assert local_path("file:") == "file:"
    assert local_path("%41.png") == "%41.png"
    assert find_file(folder, (folder / "a b.png").as_uri()) == folder / "a b.png"
    assert find_file(folder, (folder / f"{DECOMPOSED}/x.png").as_uri()) == folder / f"{DECOMPOSED}/x.png"


def test_addresses_on_the_network() -> None:
    for address in (
        "https://example.org/a.png",
        "https:/example.org/a.png",
        "S3://bucket/a.png",
        "hf://datasets/a",
        "data:image/png;base64,AA",
    ):
        assert is_remote(address)
    assert not is_remote("file:///a.png")
    assert not is_remote("https.png")


@pytest.mark.parametrize(
    "name", [f"{COMPOSED}/x.png", f"{COMPOSED}\\x.png", f"{DECOMPOSED}.png", f"{COMPOSED}/{DECOMPOSED}.png", "a b.png"]
)
def test_names_that_mean_a_file(folder: Path, name: str) -> None:
    found = find_file(folder, name)
    assert found is not None
    assert found.is_file()


def test_names_without_a_file(folder: Path) -> None:
    for name in ("A b.png", "b.png", f"{COMPOSED}/y.png", COMPOSED, "nul\0", "x" * 300, "", "../\ud800"):
        assert find_file(folder, name) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("A B.PNG", " (did you mean a b.png?)"),
        ("a b", " (did you mean a b.png?)"),
        ("'a b.png'", " (did you mean a b.png?)"),
        ("C:\\photos\\a b.png", " (did you mean a b.png?)"),
        (f"{DECOMPOSED}/X", f" (did you mean {DECOMPOSED}/x.png?)"),
        ("a b.png\u200b", ", which has the invisible character U+200B"),
        (DECOMPOSED, ", which is a folder"),
        ("other.png", ""),
        ("nul\0", ""),
    ],
)
def test_hints_about_a_missing_file(folder: Path, name: str, words: str) -> None:
    assert why_missing(folder, name) == words
