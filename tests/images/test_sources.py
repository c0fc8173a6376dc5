from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.images.columns import Columns
from sotglp.images.sources import display_name, find_images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("one/a.png", "one/b.png", "two/c.png", "one/[d].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "list.csv").write_text("path,label,split\none/a.png,,train\ntwo/c.png,,test\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch):
    def set_input(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return set_input


def test_files_folders_patterns_and_addresses(folder: Path) -> None:
    a, b, c, d = (Path(name) for name in ("one/a.png", "one/b.png", "two/c.png", "one/[d].png"))
    assert find_images(["one/a.png", "two"]) == (a, c)
    assert find_images(["*/*.png"]) == (d, a, b, c)
    assert find_images(["**/b.*"]) == (b,)
    assert find_images(["one/[d].png", "one/[ab].png"]) == (d, a, b)
    assert find_images(["one\\a.png"]) == (a,)
    assert find_images([(folder / "one/[d].png").as_uri()]) == (folder / "one/[d].png",)
    # Decoded later, with an error of its own.
    assert find_images(["gone.png"]) == (Path("gone.png"),)


def test_manifests(folder: Path) -> None:
    assert find_images(["list.csv"], Columns("test")) == (Path("two/c.png"),)
    assert len(find_images(["list.csv", "one/b.png"], Columns("all"))) == 3
    with pytest.raises(SotglpError, match="splits test, train"):
        find_images(["list.csv"])
    with pytest.raises(SotglpError, match="--split and --path-column are for manifests"):
        find_images(["one"], Columns("test"))


def test_standard_input(folder: Path, give) -> None:
    for content in (b"one/a.png\ntwo\n", b"\xef\xbb\xbfone/a.png\r\n\r\ntwo\r\n", b"one/a.png\0two\0"):
        give(content)
        assert find_images(["one/b.png", "-"]) == (Path("one/b.png"), Path("one/a.png"), Path("two/c.png"))
    give(b"list.csv\n")
    assert find_images(["-"], Columns("train")) == (Path("one/a.png"),)
    give(Path("one/a.png").read_bytes())
    (image,) = find_images(["-"])
    assert image.read_bytes() == Path("one/a.png").read_bytes()
    assert display_name(str(image)) == "-"
    Path("-").write_bytes(b"")
    assert find_images(["-"]) == (Path("-"),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "standard input is empty"),
        (b"\n \n", "standard input is empty"),
        (b"-\n", "names itself"),
        (b"two/*.jpg\n", "the pattern two/.* matches no image"),
        (b"%PDF-1.4" + b"\n\0\1" * 9, "neither an image"),
    ],
)
def test_standard_input_that_cannot_be_used(folder: Path, give, content: bytes, words: str) -> None:
    give(content)
    with pytest.raises(SotglpError, match=words):
        find_images(["-"])


def test_standard_input_is_read_once_and_not_from_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SotglpError, match="give - once"):
        find_images(["-", "one", "-"])
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SotglpError, match="- reads standard input"):
        find_images(["-"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("three/*", "matches no image; check it"),
        ("o*", "matches folders, but no image"),
        ("*.csv", "matches no image .1 file ending in .csv was left out"),
        ("https://example.org/a.png", "is an address; download"),
    ],
)
def test_names_without_images(folder: Path, name: str, words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        find_images([name])


def test_a_pattern_counts_what_it_leaves_out(folder: Path) -> None:
    Path("one/notes.txt").touch()
    with pytest.warns(SotglpWarning, match=r"of the pattern one/\*, 1 file ending in .txt was left out"):
        assert len(find_images(["one/*"])) == 3
