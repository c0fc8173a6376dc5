from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sotglp import SotglpError
from sotglp.features.cache import FeatureStore, entry_bytes
from sotglp.features.prune import cache_groups, prune
from support.cache_entries import (
    ABOUT,
    LARGE,
    age,
    entry_file,
    features,
    fill,
    key_of,
    write_and_prune,
    write_without_end,
)


def assert_holds(store: FeatureStore, number: int, **sizes: int) -> None:
    entry = store.read(key_of(number))
    assert entry is not None
    image_features, patches = features(number, **sizes)
    assert torch.equal(entry[0], image_features)
    # numpy rounds to half precision on its own.
    assert entry[1].numpy().tobytes() == patches.numpy().astype(np.float16).tobytes()
    assert entry[1].shape == patches.shape


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "cache", ABOUT)


@pytest.fixture
def file(store: FeatureStore) -> Path:
    """The file of entry 0, which is written."""
    fill(store, range(1))
    return entry_file(store, key_of(0))


@settings(max_examples=40, deadline=None)
@given(
    d=st.integers(1, 40),
    p=st.integers(1, 12),
    w=st.integers(1, 40),
    bits=st.randoms(use_true_random=False),
    transposed=st.booleans(),
    dtype=st.sampled_from([torch.float16, torch.float32]),
)
def test_any_entry_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    d: int,
    p: int,
    w: int,
    bits: random.Random,
    transposed: bool,
    dtype: torch.dtype,
) -> None:
    store = FeatureStore(tmp_path_factory.mktemp("cache"), ABOUT)
    image_features = torch.frombuffer(bytearray(bits.randbytes(4 * d)), dtype=torch.float32)
    image_features = torch.where(image_features.isfinite(), image_features, -0.0)
    # All numbers of the type, subnormal ones and -0 among them; float32 rows have one beyond float16.
    patches = torch.frombuffer(bytearray(bits.randbytes(dtype.itemsize * p * w)), dtype=dtype)
    patches = torch.where(patches.isfinite(), patches, -0.0).view(p, w)
    if dtype == torch.float32:
        patches[p - 1, w - 1] = 1e6
    if transposed:
        patches = patches.T
    key = FeatureStore.key("image", [d, p, w])
    store.write(key, image_features, patches)
    entry = FeatureStore(store.root, ABOUT).read(key)
    assert entry is not None
    assert [(tensor.dtype, tensor.shape) for tensor in entry] == [
        (torch.float32, image_features.shape),
        (dtype, patches.shape),
    ]
    assert entry[0].numpy().tobytes() == image_features.numpy().tobytes()
    assert entry[1].numpy().tobytes() == patches.numpy().tobytes()


def test_what_was_read_outlives_its_file(store: FeatureStore, file: Path) -> None:
    entry = store.read(key_of(0))
    assert entry is not None
    before = entry[1].clone()
    file.write_bytes(bytes(file.stat().st_size))
    file.unlink()
    assert torch.equal(entry[1], before)
    entry[0].add_(1)


def test_nothing_is_written_before_the_first_entry(store: FeatureStore) -> None:
    assert not store.has(key_of(0))
    assert store.read(key_of(0)) is None
    assert not store.root.exists()
    fill(store, range(1))
    assert store.has(key_of(0))
    assert sorted(path.name for path in store.path.iterdir()) == sorted([key_of(0)[:2], "about.json"])


def test_entries_are_found_by_all_they_depend_on(store: FeatureStore, file: Path) -> None:
    same = dict(reversed(ABOUT.items())) | {"image_size": (224, 224)}
    assert FeatureStore(store.root, same).has(key_of(0))
    for name in ABOUT:
        assert not FeatureStore(store.root, ABOUT | {name: "other"}).has(key_of(0))
    keys = [
        FeatureStore.key(content, view) for content in ("a", "b") for view in (None, (), (0,), (0, 1), (1, 0), (1, 1))
    ]
    assert len(set(keys)) == len(keys)
    assert FeatureStore.key("a", np.array([0, 1])) == FeatureStore.key("a", [0, 1])  # type: ignore[arg-type]


def test_names_and_content_of_entries_stay_as_they_were(store: FeatureStore) -> None:
    """Users have entries on disk that took hours to compute."""
    store.write(key_of(0), torch.tensor([1.0, -2.5]), torch.tensor([[0.5, 65504.0]]))
    assert entry_file(store, key_of(0)).relative_to(store.root).as_posix() == (
        "ff87730856868e35/88/88faaae2a27fd767b0bdbfa550df6a11b01eb7a778b6678c77572cc40b13513e.safetensors"
    )
    assert hashlib.sha256(entry_file(store, key_of(0)).read_bytes()).hexdigest() == (
        "76267bc3bee29cf740c709f218df175f83339b05a9eb80ae1adb0cdc061c2049"
    )


@pytest.mark.parametrize("found", [b"{}", b"", b"\xff", b'{"sotglp_features": 1, "about": {"backbone": "other"}}'])
def test_a_damaged_label_hides_a_group_until_the_next_write(store: FeatureStore, file: Path, found: bytes) -> None:
    (store.path / "about.json").write_bytes(found)
    assert cache_groups(store.root) == []
    assert prune(store.root, everything=True).n_entries == 0
    assert file.exists()
    fill(store, range(1, 2))
    assert [group.n_entries for group in cache_groups(store.root)] == [2]


@pytest.mark.parametrize(("d", "p", "w"), [(512, 196, 768), (640, 49, 640), (1, 1, 1), (1024, 1000, 10)])
def test_the_size_of_an_entry_is_known_beforehand(store: FeatureStore, d: int, p: int, w: int) -> None:
    fill(store, range(1), d=d, p=p, w=w)
    assert entry_bytes(d, p, w) == entry_file(store, key_of(0)).stat().st_size
    header = 400
    assert 4 * d + 2 * p * w < entry_bytes(d, p, w) < 4 * d + 2 * p * w + header


def without_checksum(content: bytes) -> bytes:
    return safetensors.torch.save(safetensors.torch.load(content))


def with_checksum_of_tensors_alone(content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    checksum = zlib.crc32(content[8 + length :])
    return safetensors.torch.save(safetensors.torch.load(content), {"crc32": f"{checksum:08x}"})


def reshaped(content: bytes) -> bytes:
    assert b'"shape":[3,5]' in content
    return content.replace(b'"shape":[3,5]', b'"shape":[5,3]')


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:7],
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: bytes(len(content)),
        lambda content: content[:-30] + bytes(30),
        lambda content: struct.pack("<Q", 2**62) + content[8:],
        lambda content: pickle.dumps(print),
        lambda content: safetensors.torch.save({"weight": torch.zeros(2)}, {"format": "pt"}),
        lambda content: content.replace(b'"F16"', b'"I16"'),
        without_checksum,
        with_checksum_of_tensors_alone,
        reshaped,
    ],
)
def test_a_damaged_entry_is_removed(store: FeatureStore, file: Path, damage: Callable[[bytes], bytes]) -> None:
    file.write_bytes(damage(file.read_bytes()))
    assert store.read(key_of(0)) is None
    assert not file.exists()
    fill(store, range(1))
    assert_holds(store, 0)


def test_no_flipped_bit_gives_other_numbers(store: FeatureStore, file: Path) -> None:
    content = file.read_bytes()
    n_refused = 0
    # A prime step, so that all bits of a byte and all parts of the file are met.
    positions = range(0, 8 * len(content), 3)
    for position in positions:
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        file.write_bytes(flipped)
        if store.read(key_of(0)) is None:
            n_refused += 1
            assert not file.exists()
        else:
            # Space around the header may change without changing what it says.
            assert_holds(store, 0)
    assert n_refused > 0.9 * len(positions)


def test_an_entry_under_another_name_is_refused(store: FeatureStore, file: Path) -> None:
    content = file.read_bytes()
    fill(store, range(1, 2))
    entry_file(store, key_of(1)).write_bytes(content)
    assert store.read(key_of(1)) is None
    other = FeatureStore(store.root, ABOUT | {"fingerprint": "sha256:1"})
    fill(other, range(1))
    entry_file(other, key_of(0)).write_bytes(content)
    assert other.read(key_of(0)) is None
    assert_holds(store, 0)


@pytest.mark.parametrize("prunes", [False, True])
def test_processes_that_write_and_prune_at_once(store: FeatureStore, prunes: bool) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sotglp.features.cache", "sotglp.features.prune", "numpy"])
    start = context.Barrier(3)
    processes = [context.Process(target=write_and_prune, args=(store.root, start, 6, prunes)) for _ in range(2)]
    for process in processes:
        process.start()
    write_and_prune(store.root, start, 6, prunes=False)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    fill(store, range(20))
    for number in range(20):
        assert_holds(store, number)
    assert [group.n_entries for group in cache_groups(store.root)] == [20]
    assert list(store.root.rglob("*.part")) == []


def test_a_killed_writer_leaves_only_whole_entries_and_no_lock(store: FeatureStore) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sotglp.features.cache", "sotglp.features.prune", "numpy"])
    moments = random.Random(0)
    for _ in range(8):
        ready, sender = context.Pipe(duplex=False)
        process = context.Process(target=write_without_end, args=(store.root, sender))
        process.start()
        sender.close()
        ready.recv()
        time.sleep(moments.uniform(0.02, 0.1))
        process.kill()
        process.join(60)
        assert process.exitcode == -9
        for number in range(2):
            if store.has(key_of(number)):
                assert_holds(store, number, **LARGE)
    fill(store, range(1), **LARGE)
    (entry_file(store, key_of(0)).parent / f".{key_of(0)}.safetensors.0a1b2c3d.part").write_bytes(b"half")
    prune(store.root)
    assert list(store.root.rglob("*.part")) == []
    assert_holds(store, 0, **LARGE)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FeatureStore(tmp_path / "file" / "cache", ABOUT)
    with pytest.raises(SotglpError, match="--no-cache"):
        fill(store, range(1))
    assert store.read(key_of(0)) is None
    assert not store.has(key_of(0))


def test_a_folder_with_the_name_of_an_entry_is_left_alone(store: FeatureStore) -> None:
    folder = entry_file(store, key_of(0))
    folder.mkdir(parents=True)
    assert store.read(key_of(0)) is None
    assert not store.has(key_of(0))
    with pytest.raises(SotglpError, match="can't be written"):
        fill(store, range(1))
    assert folder.is_dir()


def test_a_read_marks_an_entry_as_used_once_a_day(store: FeatureStore) -> None:
    fill(store, range(2))
    age(store, 0, days=0.9)
    age(store, 1, days=1.1)
    before = entry_file(store, key_of(0)).stat().st_mtime
    for number in range(2):
        assert_holds(store, number)
    assert entry_file(store, key_of(0)).stat().st_mtime == before
    assert abs(time.time() - entry_file(store, key_of(1)).stat().st_mtime) < 60
