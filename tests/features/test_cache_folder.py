from __future__ import annotations

from pathlib import Path

import pytest

from sotglp import SotglpError
from sotglp.features.cache_folder import default_cache_dir


def test_the_environment_chooses_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("SOTGLP_CACHE", "/own")
    assert default_cache_dir() == Path("/own")
    monkeypatch.setenv("SOTGLP_CACHE", "~/own")
    assert default_cache_dir() == tmp_path / "own"
    monkeypatch.setenv("SOTGLP_CACHE", "")
    assert default_cache_dir() == Path("/xdg/sotglp")
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_cache_dir() == tmp_path / ".cache" / "sotglp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("SOTGLP_CACHE")
    assert default_cache_dir() == tmp_path / ".cache" / "sotglp"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(SotglpError, match="SOTGLP_CACHE"):
        default_cache_dir()
