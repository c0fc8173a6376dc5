"""Fixtures of the tests of the estimators."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def paths(class_folders: Path) -> tuple[list[str], list[str]]:
    """Paths and labels of 18 images of three classes."""
    files = sorted(class_folders.glob("*/*.png"))
    return [str(file) for file in files], [file.parent.name for file in files]
