from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sotglp import SOTGLP, Backbone
from sotglp.bulk import predict_shard as predict_module
from sotglp.bulk.parts import MANIFEST
from sotglp.bulk.predict_shard import BulkContext, BulkSettings, predict_shard
from sotglp.bulk.run import predict_shards
from sotglp.errors import SotglpError, SotglpWarning, UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.model_file.save import save_model
from sotglp.scoring.predict import predict, text_of
from sotglp.settings import InferenceConfig
from sotglp.shards.find import find_shards
from support.samples import tiny_clip
from support.shards import COLOURS, png, tar_of, web_dataset

pq = pytest.importorskip("pyarrow.parquet")

CLASSES = tuple(COLOURS)


@pytest.fixture
def model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose model, whatever the file holds, is one of a small tower."""

    def context_of(settings: BulkSettings) -> BulkContext:
        model = SOTGLP(Backbone.from_open_clip(tiny_clip()), CLASSES).eval()
        return BulkContext(settings, (model,), (text_of(model, settings.inference),), CLASSES, None)

    monkeypatch.setattr("sotglp.bulk.predict_shard.load_context", context_of)
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"a model")
    return path


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.tar").write_bytes(web_dataset(2 + i, seed=i))
    return folder


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Let products of matrices run on n threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def settings_of(model_file: Path, **changes: Any) -> BulkSettings:
    inference = InferenceConfig(batch_size=2, workers=changes.pop("workers", 0))
    return BulkSettings(str(model_file), inference, device="cpu", **changes)


def run(settings: BulkSettings, images: Path, out: Path) -> dict[str, Any]:
    return predict_shards(settings, CLASSES, find_shards([images]), out)


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(out.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]


def test_each_shard_is_a_part_with_a_line_in_the_manifest(model_file: Path, archives: Path, tmp_path: Path) -> None:
    summary = run(settings_of(model_file), archives, tmp_path / "out")
    found = rows(tmp_path / "out")
    assert len(found) == summary["n"] == 9
    assert list(found[0]) == ["path", "shard", "label", "most_probable", "probability", "ood_score", "is_unknown"]
    assert [row["path"] for row in found[:2]] == ["0000.png", "0001.png"]
    assert found[0]["shard"] == str(archives / "0.tar")
    lines = [json.loads(line) for line in (tmp_path / "out" / MANIFEST).read_text().splitlines()]
    assert lines[0]["batch_size"] == 2
    assert [line["n"] for line in lines[1:]] == [2, 3, 4]
    assert sum(summary["labels"].values()) == 9


def test_rows_are_the_same_bits_whatever_the_threads_and_the_order_of_the_shards(
    model_file: Path, archives: Path, tmp_path: Path
) -> None:
    run(settings_of(model_file), archives, tmp_path / "one")
    run(settings_of(model_file, workers=3), archives, tmp_path / "three")
    for part in sorted((tmp_path / "one").glob("*.parquet")):
        assert part.read_bytes() == (tmp_path / "three" / part.name).read_bytes()
    context = predict_module.load_context(settings_of(model_file))
    last = predict_shard(context, find_shards([archives])[2])
    expected = pq.read_table(tmp_path / "one" / "part-00002.parquet")
    assert last.probabilities.tobytes() == expected.column("probability").to_numpy().tobytes()
    assert last.ood_scores.tobytes() == expected.column("ood_score").to_numpy().tobytes()


def test_a_run_that_ended_early_continues_at_its_shard(
    model_file: Path, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings_of(model_file), archives, tmp_path / "whole")
    out, settings = tmp_path / "out", settings_of(model_file)
    done = 0

    def two_shards(*arguments: Any, **options: Any) -> Any:
        nonlocal done
        if done == 2:
            raise KeyboardInterrupt
        done += 1
        return predict_shard(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("sotglp.bulk.predict_shard.predict_shard", two_shards)
        with pytest.raises(KeyboardInterrupt):
            run(settings, archives, out)
    # A process that is killed may leave a part of a line.
    with (out / MANIFEST).open("ab") as manifest:
        manifest.write(b'{"part": 2, "fi')
    summary = run(settings, archives, out)
    assert (summary["resumed"], summary["n"]) == (2, 9)
    assert rows(out) == rows(tmp_path / "whole")
    assert (out / MANIFEST).read_bytes() == (tmp_path / "whole" / MANIFEST).read_bytes()
    assert run(settings, archives, out)["resumed"] == 3
    (out / "part-00001.parquet").unlink()
    assert run(settings, archives, out)["resumed"] == 2
    assert rows(out) == rows(tmp_path / "whole")


def test_other_settings_models_and_images_are_refused(model_file: Path, archives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(settings_of(model_file), archives, out)
    with pytest.raises(SotglpError, match="another label_unknown"):
        run(settings_of(model_file, label_unknown=False), archives, out)
    with pytest.raises(SotglpError, match="another batch_size"):
        run(BulkSettings(str(model_file), InferenceConfig(batch_size=3), device="cpu"), archives, out)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another model")
    with pytest.raises(SotglpError, match="another model"):
        run(settings_of(other), archives, out)
    (archives / "1.tar").write_bytes(web_dataset(3, seed=9) + bytes(512))
    with pytest.raises(SotglpError, match=r"part-00001\.parquet"):
        run(settings_of(model_file), archives, out)


def test_a_folder_with_other_files_is_kept(model_file: Path, archives: Path, tmp_path: Path) -> None:
    with pytest.raises(SotglpError, match="isn't a folder of predictions"):
        run(settings_of(model_file), archives, archives)
    assert sorted(path.name for path in archives.iterdir()) == ["0.tar", "1.tar", "2.tar"]


def test_what_cannot_be_read_is_named_and_ends_the_run_unless_it_is_skipped(model_file: Path, tmp_path: Path) -> None:
    content = tar_of({"a.png": png(0), "b.png": b"no image", "c.mp4": b"x"}).rstrip(b"\0")
    (tmp_path / "in.tar").write_bytes(content + bytes(-len(content) % 512))
    with pytest.raises(UnreadableImageError, match=r"b\.png in .*in\.tar"):
        run(settings_of(model_file), tmp_path / "in.tar", tmp_path / "out")
    with pytest.warns(SotglpWarning) as warned:
        summary = run(settings_of(model_file, skip_unreadable=True), tmp_path / "in.tar", tmp_path / "out")
    assert summary["unreadable"] == ["b.png", str(tmp_path / "in.tar")]
    assert (summary["n"], summary["left_out"]) == (1, {".mp4": 1})
    assert any("b.png" in str(one.message) for one in warned)


def test_a_shard_without_readable_images_is_an_empty_part(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(tar_of({"b.png": b"no image"}))
    with pytest.warns(SotglpWarning):
        run(settings_of(model_file, skip_unreadable=True), tmp_path / "in.tar", tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "part-00000.parquet").num_rows == 0


def test_a_second_process_cannot_write_to_the_same_folder(model_file: Path, archives: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    import multiprocessing

    out = tmp_path / "out"
    run(settings_of(model_file), archives, out)
    context = multiprocessing.get_context("fork")
    ready, stop = context.Event(), context.Event()

    def hold() -> None:
        with (out / MANIFEST).open("rb+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            ready.set()
            stop.wait(60)

    holder = context.Process(target=hold)
    holder.start()
    try:
        assert ready.wait(60)
        with pytest.raises(SotglpError, match="another process"):
            run(settings_of(model_file), archives, out)
    finally:
        stop.set()
        holder.join()


def test_rows_are_the_same_for_any_number_of_threads(model_file: Path, archives: Path) -> None:
    context = predict_module.load_context(settings_of(model_file))
    shard = find_shards([archives])[2]
    alone, shared = (predict_shard(replace(context, n_threads=n), shard) for n in (1, 3))
    assert shared.paths == alone.paths
    np.testing.assert_array_equal(shared.probabilities, alone.probabilities)
    np.testing.assert_array_equal(shared.ood_scores, alone.ood_scores)


def test_a_model_has_the_threads_of_its_process_and_leaves_them_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, SOTGLP(Backbone.load("tiny"), CLASSES).eval())
    with threads(3):
        assert predict_module.load_context(settings_of(path)).n_threads == 3
        assert torch.get_num_threads() == 3


def test_scores_are_those_of_predict(model_file: Path, archives: Path) -> None:
    folder = archives.parent / "files"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.png").write_bytes(png(i))
    with threads(1):
        context = predict_module.load_context(settings_of(model_file))
    found = predict_shard(context, find_shards([folder])[0])
    with threads(1):
        expected = predict(context.models[0], ImageSet.from_flat_folder(folder), InferenceConfig(batch_size=2))
    np.testing.assert_array_equal(found.probabilities, expected.probabilities.max(axis=1))
    np.testing.assert_array_equal(found.ood_scores, expected.ood_scores)
