from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import random
import struct
import time
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sotglp import SotglpError
from sotglp.console.text import readable_size
from sotglp.errors import UnreadableImageError
from sotglp.features import cache as store_module
from sotglp.features.cache import FeatureStore, default_cache_dir, entry_bytes
from sotglp.features.prune import cache_groups, prune
from sotglp.images.digest import content_digest
from support.cache_entries import ABOUT, age, entry_file, features, fill, key_of


def assert_holds(store: FeatureStore, number: int, **sizes: int) -> None:
    entry = store.read(key_of(number))
    assert entry is not None
    image_features, patch_tokens = features(number, **sizes)
    assert torch.equal(entry[0], image_features)
    # numpy rounds to half precision on its own.
    assert entry[1].numpy().tobytes() == patch_tokens.numpy().astype(np.float16).tobytes()
    assert entry[1].shape == patch_tokens.shape


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "cache", ABOUT)


@settings(max_examples=60, deadline=None)
@given(
    d=st.integers(1, 40),
    p=st.integers(1, 12),
    w=st.integers(1, 40),
    bits=st.randoms(use_true_random=False),
    transposed=st.booleans(),
)
def test_any_entry_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, d: int, p: int, w: int, bits: random.Random, transposed: bool
) -> None:
    store = FeatureStore(tmp_path_factory.mktemp("cache"), ABOUT)
    image_features = torch.frombuffer(bytearray(bits.randbytes(4 * d)), dtype=torch.float32)
    image_features = torch.where(image_features.isfinite(), image_features, -0.0)
    # All half numbers, subnormal ones and -0 among them.
    patch_tokens = torch.frombuffer(bytearray(bits.randbytes(2 * p * w)), dtype=torch.float16)
    patch_tokens = torch.where(patch_tokens.isfinite(), patch_tokens, -0.0).view(p, w)
    if transposed:
        patch_tokens = patch_tokens.T
    key = FeatureStore.key("image", [d, p, w])
    store.write(key, image_features, patch_tokens)
    entry = FeatureStore(store.root, ABOUT).read(key)
    assert entry is not None
    assert [(tensor.dtype, tensor.shape) for tensor in entry] == [
        (torch.float32, image_features.shape),
        (torch.float16, patch_tokens.shape),
    ]
    assert entry[0].numpy().tobytes() == image_features.numpy().tobytes()
    assert entry[1].numpy().tobytes() == patch_tokens.numpy().tobytes()


def test_a_row_of_a_batch_is_kept_rounded_to_half(store: FeatureStore) -> None:
    batch = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    store.write(key_of(0), batch[2, 0, :4], batch[2])
    entry = store.read(key_of(0))
    assert entry is not None
    rows = batch.detach().numpy()
    assert np.array_equal(entry[0].numpy(), rows[2, 0, :4].astype(np.float32))
    assert np.array_equal(entry[1].numpy(), rows[2].astype(np.float16))


def test_what_was_read_outlives_its_file(store: FeatureStore) -> None:
    fill(store, range(1))
    entry = store.read(key_of(0))
    assert entry is not None
    before = entry[1].clone()
    file = entry_file(store, key_of(0))
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


def test_entries_are_found_by_all_they_depend_on(tmp_path: Path, store: FeatureStore) -> None:
    fill(store, range(1))
    same = dict(reversed(ABOUT.items())) | {"image_size": (224, 224)}
    assert FeatureStore(store.root, same).has(key_of(0))
    for name in ABOUT:
        assert not FeatureStore(store.root, ABOUT | {name: "other"}).has(key_of(0))
    keys = [
        FeatureStore.key(content, view) for content in ("a", "b") for view in (None, (), (0,), (0, 1), (1, 0), (1, 1))
    ]
    assert len(set(keys)) == len(keys)
    assert FeatureStore.key("a", np.array([0, 1])) == FeatureStore.key("a", [0, 1])  # type: ignore[arg-type]


def test_another_format_is_another_shelf(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, range(1))
    monkeypatch.setattr(store_module, "FORMAT_VERSION", 2)
    later = FeatureStore(store.root, ABOUT)
    assert not later.has(key_of(0))
    fill(later, range(2))
    # Both versions know each other's shelves.
    assert sorted(shelf.n_entries for shelf in shelves(store.root)) == [1, 2]


@pytest.mark.parametrize("found", [b"{}", b"", b"\xff", b'{"sotglp_features": 1, "about": {"backbone": "other"}}'])
def test_a_shelf_that_says_something_else_is_refused(store: FeatureStore, found: bytes) -> None:
    fill(store, range(1))
    (store.path / "about.json").write_bytes(found)
    with pytest.raises(SotglpError, match=r"about\.json does not describe .*: remove the folder"):
        FeatureStore(store.root, ABOUT)
    assert shelves(store.root) == []
    assert prune(store.root, everything=True).n_entries == 0
    assert entry_file(store, key_of(0)).exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 65505.0, -65536.0])
def test_numbers_that_half_precision_cannot_hold_are_refused(store: FeatureStore, value: float) -> None:
    image_features, patch_tokens = features(0)
    patch_tokens[2, 1] = value
    with pytest.raises(SotglpError, match=r"beyond 65504 .*: use --no-cache"):
        store.write(key_of(0), image_features, patch_tokens)
    assert not store.root.exists()
    patch_tokens[2, 1] = -65504.0
    store.write(key_of(0), image_features, patch_tokens)
    image_features[1] = float("nan")
    with pytest.raises(SotglpError, match="image features that are not finite"):
        store.write(key_of(1), image_features, patch_tokens)


def test_image_features_may_go_beyond_half_precision(store: FeatureStore) -> None:
    store.write(key_of(0), torch.full((3,), 1e30), torch.zeros(1, 1))
    entry = store.read(key_of(0))
    assert entry is not None
    assert torch.equal(entry[0], torch.full((3,), 1e30))


@pytest.mark.parametrize(("d", "p", "w"), [(512, 196, 768), (640, 49, 640), (1, 1, 1), (1024, 1000, 10)])
def test_the_size_of_an_entry_is_known_beforehand(store: FeatureStore, d: int, p: int, w: int) -> None:
    fill(store, range(1), d=d, p=p, w=w)
    assert entry_bytes(d, p, w) == entry_file(store, key_of(0)).stat().st_size
    header = 400
    assert 4 * d + 2 * p * w < entry_bytes(d, p, w) < 4 * d + 2 * p * w + header


def test_an_entry_is_plain_safetensors(store: FeatureStore) -> None:
    fill(store, range(1))
    tensors = safetensors.torch.load_file(entry_file(store, key_of(0)))
    assert torch.equal(tensors["image_features"], features(0)[0])
    assert torch.equal(tensors["patch_tokens"], features(0)[1].half())


def entry_content(store: FeatureStore) -> bytes:
    fill(store, range(1))
    return entry_file(store, key_of(0)).read_bytes()


def foreign(content: bytes) -> bytes:
    return safetensors.torch.save({"weight": torch.zeros(2)}, {"format": "pt"})


def without_checksum(content: bytes) -> bytes:
    return safetensors.torch.save(safetensors.torch.load(content))


def with_checksum_of_tensors_alone(content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    checksum = zlib.crc32(content[8 + length :])
    return safetensors.torch.save(safetensors.torch.load(content), {"crc32": f"{checksum:08x}"})


def in_whole_numbers(content: bytes) -> bytes:
    return content.replace(b'"F16"', b'"I16"')


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
        foreign,
        without_checksum,
        with_checksum_of_tensors_alone,
        in_whole_numbers,
        reshaped,
    ],
)
def test_a_broken_entry_is_none_and_removed(store: FeatureStore, damage: Callable[[bytes], bytes]) -> None:
    content = entry_content(store)
    file = entry_file(store, key_of(0))
    file.write_bytes(damage(content))
    assert store.read(key_of(0)) is None
    assert not file.exists()
    fill(store, range(1))
    assert_holds(store, 0)


def test_no_flipped_bit_gives_other_numbers(store: FeatureStore) -> None:
    content = entry_content(store)
    file = entry_file(store, key_of(0))
    n_refused = 0
    for position in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        file.write_bytes(flipped)
        entry = store.read(key_of(0))
        if entry is None:
            n_refused += 1
            assert not file.exists()
        else:
            # Space around the header may change without changing what it says.
            assert_holds(store, 0)
    assert n_refused > 0.9 * 8 * len(content)


def test_an_entry_under_another_name_is_not_taken(store: FeatureStore) -> None:
    content = entry_content(store)
    fill(store, range(1, 2))
    entry_file(store, key_of(1)).write_bytes(content)
    assert store.read(key_of(1)) is None
    other = FeatureStore(store.root, ABOUT | {"fingerprint": "sha256:1"})
    fill(other, range(1))
    entry_file(other, key_of(0)).write_bytes(content)
    assert other.read(key_of(0)) is None
    assert_holds(store, 0)


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jpg", tmp_path / "b.png"
    first.write_bytes(b"picture")
    second.write_bytes(b"picture")
    digest = content_digest(first)
    assert digest == content_digest(second) == hashlib.sha256(b"picture").hexdigest()
    times = first.stat()
    first.write_bytes(b"Picture")
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert content_digest(first) != digest
    with pytest.raises(UnreadableImageError, match=r"can't read .*c\.jpg: opening it failed \(No such file"):
        content_digest(tmp_path / "c.jpg")


def test_a_picture_is_known_by_what_it_shows() -> None:
    def painted(mode: str = "RGB", size: tuple[int, int] = (4, 6)) -> Image.Image:
        return Image.frombytes(mode, size, bytes(range(24 * len(mode))))

    plain = painted()
    assert content_digest(plain) == content_digest(plain.copy())
    palette = Image.frombytes("P", (4, 6), bytes(range(24)))
    palette.putpalette([value for index in range(256) for value in (index, 0, 0)])
    other_palette = palette.copy()
    other_palette.putpalette([value for index in range(256) for value in (0, index, 0)])
    see_through = palette.copy()
    see_through.info["transparency"] = 3
    turned = plain.copy()
    turned.getexif()[0x0112] = 3
    changed = plain.copy()
    changed.putpixel((1, 1), (0, 0, 0))
    pictures = [
        plain,
        painted(size=(6, 4)),
        painted(size=(24, 1)),
        painted("L"),
        palette,
        other_palette,
        see_through,
        turned,
        changed,
    ]
    assert len({content_digest(picture) for picture in pictures}) == len(pictures)


def test_a_tensor_is_known_by_type_shape_and_values() -> None:
    plain = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    tensors = [plain, plain.view(3, 2, 8), plain.view(torch.int8), plain.float(), plain.flip(0), plain.transpose(1, 2)]
    assert len({content_digest(tensor) for tensor in tensors}) == len(tensors)
    assert content_digest(plain) == content_digest(torch.stack([plain * 0, plain])[1])
    assert content_digest(plain.mT) == content_digest(plain.mT.contiguous())


def write_fifty(root: Path, start: Barrier) -> None:
    store = FeatureStore(root, ABOUT)
    start.wait()
    for _ in range(4):
        fill(store, range(50))


def test_two_processes_write_the_same_entries(store: FeatureStore) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    processes = [context.Process(target=write_fifty, args=(store.root, start)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    for number in range(50):
        assert_holds(store, number)
    assert [shelf.n_entries for shelf in shelves(store.root)] == [50]
    assert list(store.root.rglob("*.part")) == []


LARGE = {"d": 16, "p": 1000, "w": 1000}


def write_without_end(root: Path, ready: Connection) -> None:
    store = FeatureStore(root, ABOUT)
    first, second = features(0, **LARGE), features(1, **LARGE)
    ready.send(None)
    while True:
        store.write(key_of(0), *first)
        store.write(key_of(1), *second)


def test_a_killed_writer_leaves_only_whole_entries(store: FeatureStore) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sotglp.features.cache"])
    moments = random.Random(0)
    for _ in range(15):
        ready, told = context.Pipe(duplex=False)
        process = context.Process(target=write_without_end, args=(store.root, told))
        process.start()
        told.close()
        ready.recv()
        time.sleep(moments.uniform(0.02, 0.1))
        process.kill()
        process.join(60)
        assert process.exitcode == -9
        for number in range(2):
            if store.has(key_of(number)):
                assert_holds(store, number, **LARGE)
    assert store.has(key_of(0))
    leftovers = list(store.root.rglob("*.part"))
    prune(store.root)
    assert sorted(store.root.rglob("*.part")) == sorted(leftovers)
    for path in leftovers:
        os.utime(path, (0, 0))
    prune(store.root)
    assert list(store.root.rglob("*.part")) == []
    assert_holds(store, 0, **LARGE)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    if os.geteuid() == 0:
        # Permissions stop root from nothing.
        tmp_path.joinpath("file").write_text("")
        root = tmp_path / "file" / "cache"
    else:
        root.mkdir(mode=0o500)
    store = FeatureStore(root, ABOUT)
    with pytest.raises(SotglpError, match=f"features can't be kept in {root} .*--cache-dir, or use --no-cache"):
        fill(store, range(1))
    assert store.read(key_of(0)) is None
    assert not store.has(key_of(0))


def test_a_full_disk(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, range(1))

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SotglpError, match=r"can't be kept in .*\(No space left on device\): make room there"):
        fill(store, range(1, 2))
    assert_holds(store, 0)
    assert list(store.root.rglob("*.part")) == []


def test_a_folder_in_the_place_of_an_entry(store: FeatureStore) -> None:
    place = entry_file(store, key_of(0))
    place.mkdir(parents=True)
    assert store.read(key_of(0)) is None
    assert not store.has(key_of(0))
    (place / "precious").write_text("somebody's")
    with pytest.raises(SotglpError, match="can't be kept"):
        fill(store, range(1))
    assert (place / "precious").read_text() == "somebody's"
    (place / "precious").unlink()
    fill(store, range(1))
    assert store.read(key_of(0)) is not None


def test_a_read_marks_an_entry_as_used_once_a_day(store: FeatureStore) -> None:
    fill(store, range(2))
    age(store, 0, days=0.9)
    age(store, 1, days=1.1)
    before = entry_file(store, key_of(0)).stat().st_mtime
    for number in range(2):
        assert_holds(store, number)
    assert entry_file(store, key_of(0)).stat().st_mtime == before
    assert abs(time.time() - entry_file(store, key_of(1)).stat().st_mtime) < 60


def test_the_cache_lies_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(SotglpError, match=r"no home folder .* SOTGLP_CACHE"):
        default_cache_dir()


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (303104, "296.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (1_900_000_000, "1.8 GiB"),
        (2**40, "1.0 TiB"),
        (2**52, "4096.0 TiB"),
    ],
)
def test_sizes_for_people(n_bytes: int, text: str) -> None:
    assert readable_size(n_bytes) == text
