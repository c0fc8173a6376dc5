from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch

from sotglp.features.cache import FeatureStore, entry_bytes
from support.command import Run, sotglp

ABOUT = {"backbone": "ViT-B-16", "fingerprint": "sha256:0"}
SIZE = entry_bytes(4, 3, 500)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Five entries, used 0, 10, 20, 30 and 40 days ago."""
    store = FeatureStore(tmp_path / "cache", ABOUT)
    for number in range(5):
        key = FeatureStore.key("image", [number])
        store.write(key, torch.zeros(4), torch.zeros(3, 500))
        used = time.time() - number * 10 * 86400
        os.utime(store.path / key[:2] / f"{key}.safetensors", (used, used))
    return store


def left(store: FeatureStore) -> list[int]:
    return [number for number in range(5) if store.has(FeatureStore.key("image", [number]))]


def test_list(store: FeatureStore) -> None:
    lines = sotglp("cache", "list", "--cache-dir", store.root).stdout.splitlines()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert lines == [
        f"{store.path.name}  {5 * SIZE / 1024:.1f} KiB, 5 entries, last used {today}",
        "    backbone=ViT-B-16",
        "    fingerprint=sha256:0",
        f"{5 * SIZE / 1024:.1f} KiB in {store.root}",
    ]
    result = json.loads(sotglp("cache", "list", "--cache-dir", store.root, "--json", "-").stdout)
    assert result["cache_dir"] == str(store.root)
    assert result["n_bytes"] == 5 * SIZE
    (group,) = result["groups"]
    assert group.pop("last_used").startswith(today)
    assert group == {"path": str(store.path), "about": ABOUT, "n_entries": 5, "n_bytes": 5 * SIZE}


def test_the_cache_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTGLP_CACHE", str(tmp_path / "absent"))
    assert sotglp("cache", "list").stdout == f"0 B in {tmp_path / 'absent'}\n"
    assert "removed 0 entries" in sotglp("cache", "prune", "--all").stdout


def test_prune_by_age(store: FeatureStore, tmp_path: Path) -> None:
    done = sotglp("cache", "prune", "--older-than", "35", "--cache-dir", store.root, "--json", tmp_path / "out.json")
    assert done.stdout == f"removed 1 entry, {SIZE / 1024:.1f} KiB, from {store.root}\n"
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["cache_dir"], result["n_entries"], result["n_bytes"]) == (str(store.root), 1, SIZE)
    assert left(store) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        *(("--keep " + size, kept) for size, kept in (("10GB", 5), (f"{SIZE * 3}B", 3), ("10kb", 3), ("9KiB", 2))),
        *(("--keep " + size, kept) for size, kept in (("0.01MB", 3), ("0.009MiB", 2), ("0TB", 0))),
        ("--all", 0),
    ],
)
def test_prune(store: FeatureStore, options: str, kept: int, output_of: Run) -> None:
    # Three entries fit into 10 kB and not into 9 KiB.
    assert 9 * 1024 < 3 * SIZE < 0.009 * 2**20 + SIZE
    assert 3 * SIZE < 10_000 < 4 * SIZE
    output_of("cache", "prune", *options.split(), "--cache-dir", store.root)
    assert left(store) == list(range(kept))


def test_mistakes_are_refused(store: FeatureStore, tmp_path: Path, error_of: Run) -> None:
    prune = ("cache", "prune", "--cache-dir", store.root)
    assert "give --older-than DAYS, --keep SIZE or --all" in error_of(*prune)
    for size in ("10", "much", "-1GB", "GB", "1iB", "1e3MB", ""):
        error = error_of(*prune, f"--keep={size}")
        assert f"keep = {size!r} is not a size: give one such as 10GB" in error
    (tmp_path / "precious.json").write_text("{}")
    for command in ((*prune, "--all"), ("cache", "list", "--cache-dir", store.root)):
        assert "not a result of sotglp" in error_of(*command, "--json", tmp_path / "precious.json")
    assert "can't be listed" in error_of("cache", "list", "--cache-dir", tmp_path / "precious.json")
    assert left(store) == [0, 1, 2, 3, 4]
