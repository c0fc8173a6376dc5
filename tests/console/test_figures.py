from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sotglp.console.figures import save_figure
from sotglp.errors import SotglpError


def figure() -> Figure:
    drawn = Figure()
    drawn.subplots().plot([1, 3, 2], label="a line")
    return drawn


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf", ".PNG"])
def test_the_same_picture_gives_the_same_bytes(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b"):
        save_figure(figure(), tmp_path / f"{name}{ending}", force=False)
    first, second = ((tmp_path / f"{name}{ending}").read_bytes() for name in ("a", "b"))
    assert first == second
    assert first.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending.lower()])


@pytest.mark.parametrize("name", ["maps.bmp", "maps", "maps.png.txt"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SotglpError, match="must end in"):
        save_figure(figure(), tmp_path / name, force=False)
    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_stays_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "maps.png").write_text("mine")
    with pytest.raises(SotglpError, match="exists"):
        save_figure(figure(), tmp_path / "maps.png", force=False)
    assert (tmp_path / "maps.png").read_text() == "mine"
    save_figure(figure(), tmp_path / "maps.png", force=True)
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
