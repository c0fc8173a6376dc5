from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch

from sotglp import SotglpError
from sotglp.features import cache as store_module
from sotglp.features.cache import FeatureStore, entry_bytes
from sotglp.features.prune import cache_groups, prune
from support.cache_entries import ABOUT, DAY, age, entry_file, features, fill, key_of


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "cache", ABOUT)


def test_old_leftovers_of_killed_writers_are_pruned(store: FeatureStore) -> None:
    fill(store, range(1))
    folder = entry_file(store, key_of(0)).parent
    leftovers = [folder / f".{key_of(0)}.safetensors.0a1b2c3d.part", store.path / ".about.json.0a1b2c3d.part"]
    for path in leftovers:
        path.write_bytes(b"half")
    prune(store.root, everything=True)
    assert all(path.exists() for path in leftovers)
    for path in leftovers:
        os.utime(path, (0, time.time() - 1.1 * DAY))
    prune(store.root)
    assert list(store.root.iterdir()) == []


@contextmanager
def in_threads(*loops: Callable[[], object]) -> Iterator[None]:
    """Run functions over and over meanwhile; whatever one of them raises fails the test."""
    errors: list[BaseException] = []
    stop = threading.Event()

    def run(loop: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                loop()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_writing_reading_and_pruning_at_once(store: FeatureStore) -> None:
    found = []

    def read() -> None:
        for number in range(3):
            if (entry := FeatureStore(store.root, ABOUT).read(key_of(number))) is not None:
                found.append(torch.equal(entry[0], features(number)[0]))

    def list_and_prune() -> None:
        shelves(store.root)
        prune(store.root, everything=True)

    with in_threads(lambda: fill(store, range(3)), read, list_and_prune, list_and_prune):
        time.sleep(3)
    assert len(found) > 10
    assert all(found)
    fill(store, range(3))
    assert [shelf.n_entries for shelf in shelves(store.root)] == [3]


def test_a_label_that_was_pruned_while_an_entry_came_is_put_back(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, range(1))
    rmdir, shelf = os.rmdir, str(store.path)

    def write_first(path: str | Path) -> None:
        if str(path) == shelf:
            # As a writer does that saw the label just before it went.
            with monkeypatch.context() as patch:
                patch.setattr(FeatureStore, "_put_label", lambda self: None)
                fill(store, range(2))
        rmdir(path)

    monkeypatch.setattr(os, "rmdir", write_first)
    assert prune(store.root, everything=True).n_entries == 1
    monkeypatch.undo()
    assert [found.n_entries for found in shelves(store.root)] == [2]
    assert FeatureStore(store.root, ABOUT).has(key_of(1))


def test_a_shelf_that_was_pruned_while_an_entry_came_is_labelled_again(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store_module.place_file

    def prune_first(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name != "about.json":
            prune(store.root)
            assert not store.path.exists()
        place(path, *arguments, **options)

    monkeypatch.setattr(store_module, "place_file", prune_first)
    fill(store, range(1))
    assert [shelf.n_entries for shelf in shelves(store.root)] == [1]


def test_a_shelf_that_another_prune_removed_stays_away(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, range(1))
    rmdir = os.rmdir

    def remove_twice(path: str | Path) -> None:
        rmdir(path)
        rmdir(path)

    monkeypatch.setattr(os, "rmdir", remove_twice)
    assert prune(store.root, everything=True).n_entries == 1
    assert list(store.root.iterdir()) == []


def test_listing(store: FeatureStore) -> None:
    assert shelves(store.root) == []
    fill(store, range(3))
    other = FeatureStore(store.root, ABOUT | {"backbone": "RN50"})
    fill(other, range(3, 5))
    for number in range(3):
        age(store, number, days=10 + number)
    latest, oldest = shelves(store.root)
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


def test_pruning_by_size_takes_the_least_recently_used_of_all_shelves(store: FeatureStore) -> None:
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
    # Not a byte too many, and both rules at once.
    assert prune(store.root, keep_bytes=4 * size - 1, older_than_days=3.5).n_entries == 2
    assert prune(store.root, keep_bytes=0).n_entries == 3
    assert list(store.root.iterdir()) == []


def test_pruning_everything_spares_what_is_not_ours(store: FeatureStore, tmp_path: Path) -> None:
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
    (shelf,) = shelves(store.root)
    assert shelf.n_entries == 20
    assert prune(store.root, everything=True).n_entries == 20
    assert all(path.exists() for path in kept)
    assert elsewhere.has(key_of(0))
    assert [found.n_entries for found in shelves(store.root)] == [0]
    assert shelves(store.root)[0].last_used is None


def test_places_that_hold_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for look in (shelves, prune):
        with pytest.raises(SotglpError, match=r"file can't be listed .*--cache-dir"):
            look(tmp_path / "file")
    assert shelves(tmp_path / "absent") == []
    assert prune(tmp_path / "absent", everything=True).n_entries == 0
