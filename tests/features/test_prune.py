from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sotglp import SotglpError
from sotglp.features import prune as prune_module
from sotglp.features.cache import FeatureStore, entry_bytes
from sotglp.features.cache_folder import LABEL_FILE
from sotglp.features.prune import cache_groups, prune
from support.cache_entries import ABOUT, age, entry_file, fill, key_of


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "cache", ABOUT)


def is_empty(root: Path) -> bool:
    return [path.name for path in root.iterdir() if path.name != ".lock"] == []


def test_leftovers_of_killed_writers_are_pruned(store: FeatureStore) -> None:
    fill(store, range(1))
    folder = entry_file(store, key_of(0)).parent
    for path in (folder / f".{key_of(0)}.safetensors.0a1b2c3d.part", store.path / ".about.json.0a1b2c3d.part"):
        path.write_bytes(b"half")
    assert prune(store.root).n_entries == 0
    assert list(store.root.rglob("*.part")) == []
    assert prune(store.root, everything=True).n_entries == 1
    assert is_empty(store.root)


def test_listing(store: FeatureStore) -> None:
    assert cache_groups(store.root) == []
    fill(store, range(3))
    other = FeatureStore(store.root, ABOUT | {"backbone": "RN50"})
    fill(other, range(3, 5))
    for number in range(3):
        age(store, number, days=10 + number)
    latest, oldest = cache_groups(store.root)
    assert (latest.path, oldest.path) == (other.path, store.path)
    assert latest.about == ABOUT | {"backbone": "RN50"}
    assert (latest.n_entries, oldest.n_entries) == (2, 3)
    assert oldest.n_bytes == 3 * entry_bytes(4, 3, 5)
    assert latest.last_used is not None
    assert oldest.last_used is not None
    assert (datetime.now(timezone.utc) - oldest.last_used).days == 10


def test_pruning_by_age(store: FeatureStore) -> None:
    fill(store, range(4))
    for number in range(4):
        age(store, number, days=number + 0.5)
    removed = prune(store.root, older_than_days=2)
    assert (removed.n_entries, removed.n_bytes) == (2, 2 * entry_bytes(4, 3, 5))
    assert [store.has(key_of(number)) for number in range(4)] == [True, True, False, False]
    assert prune(store.root, older_than_days=2).n_entries == 0


@pytest.mark.parametrize("when", [-1e9, 0.0, 15e9, 1e12])
def test_a_wrong_clock_harms_nothing(store: FeatureStore, monkeypatch: pytest.MonkeyPatch, when: float) -> None:
    fill(store, range(2))
    os.utime(entry_file(store, key_of(0)), (min(when, 4e9),) * 2)
    entries = prune_module._entries

    def moved(path: Path) -> Iterator[tuple[str, Any]]:
        # Not every disk stores such times.
        for name, stat in entries(path):
            yield name, SimpleNamespace(st_mtime=when, st_size=stat.st_size)

    monkeypatch.setattr(prune_module, "_entries", moved)
    (group,) = cache_groups(store.root)
    assert group.last_used is not None
    assert 1970 <= group.last_used.year <= 9999
    monkeypatch.undo()
    assert store.read(key_of(0)) is not None
    assert prune(store.root, everything=True).n_entries == 2


def test_a_group_that_cannot_be_read_is_named(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, range(1))
    read_bytes = Path.read_bytes

    def guarded(path: Path) -> bytes:
        if path.name == LABEL_FILE:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", guarded)
    for use in (cache_groups, prune):
        with pytest.raises(SotglpError, match=r"can't be read \(Permission denied\)"):
            use(store.root)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_locks_has_a_cache(store: FeatureStore, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    fill(store, range(2))
    assert store.read(key_of(0)) is not None
    assert prune(store.root, everything=True).n_entries == 2


def test_pruning_by_size_takes_the_least_recently_used_of_all_cache_groups(store: FeatureStore) -> None:
    other = FeatureStore(store.root, ABOUT | {"backbone": "RN50"})
    fill(store, range(4))
    fill(other, range(4))
    for number in range(4):
        age(store, number, days=2 * number)
        age(other, number, days=2 * number + 1)
    size = entry_bytes(4, 3, 5)
    assert prune(store.root, keep_bytes=8 * size).n_entries == 0
    assert prune(store.root, keep_bytes=5 * size).n_entries == 3
    assert [store.has(key_of(number)) for number in range(4)] == [True, True, True, False]
    assert [other.has(key_of(number)) for number in range(4)] == [True, True, False, False]
    # One byte below the limit, and both rules at once.
    assert prune(store.root, keep_bytes=4 * size - 1, older_than_days=3.5).n_entries == 2
    assert prune(store.root, keep_bytes=0).n_entries == 3
    assert is_empty(store.root)


def test_pruning_everything_leaves_other_files_alone(store: FeatureStore, tmp_path: Path) -> None:
    fill(store, range(20))
    name = f"{key_of(0)}.safetensors"
    entries = entry_file(store, key_of(0)).parent
    elsewhere = FeatureStore(tmp_path / "elsewhere", ABOUT | {"backbone": "RN50"})
    fill(elsewhere, range(1))
    (store.root / elsewhere.path.name).symlink_to(elsewhere.path)
    kept = [
        store.root / "photo.jpg",
        store.root / name,
        store.root / "0123456789abcdef" / "ab" / name,
        store.root / "fedcba9876543210" / "about.json",
        store.root / "models" / "about.json",
        store.path / name,
        store.path / "notes.txt",
        store.path / "zz" / name,
        store.path / ("00" if key_of(0)[:2] != "00" else "01") / name,
        entries / "model.safetensors",
        entries / f"{name}.bak",
        entries / ".notes.part",
    ]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"sotglp_features": 1, "about": {}}' if path.name == "about.json" else "precious")
        os.utime(path, (0, 0))
    (group,) = cache_groups(store.root)
    assert group.n_entries == 20
    assert prune(store.root, everything=True).n_entries == 20
    assert all(path.exists() for path in kept)
    assert elsewhere.has(key_of(0))
    assert [found.n_entries for found in cache_groups(store.root)] == [0]
    assert cache_groups(store.root)[0].last_used is None


def test_folders_without_a_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for look in (cache_groups, prune):
        with pytest.raises(SotglpError, match="--cache-dir"):
            look(tmp_path / "file")
    assert cache_groups(tmp_path / "absent") == []
    assert prune(tmp_path / "absent", everything=True).n_entries == 0
    (tmp_path / "photos").mkdir()
    assert prune(tmp_path / "photos", everything=True).n_entries == 0
    assert list((tmp_path / "photos").iterdir()) == []
