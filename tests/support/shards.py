"""Archives and tables with images."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from support.samples import coloured_image

COLOURS = {"blue sea": (20, 40, 220), "green_leaf": (30, 190, 50), "red_brick": (200, 40, 30)}


def png(seed: int, colour: tuple[int, int, int] = (20, 40, 220)) -> bytes:
    buffer = io.BytesIO()
    coloured_image(np.random.default_rng(seed), colour).save(buffer, "PNG")
    return buffer.getvalue()


def labelled(n: int, seed: int = 0) -> list[tuple[str, bytes, str]]:
    """Name, content and label of n images of the three classes in turn."""
    names = list(COLOURS)
    return [(f"{i:04d}", png(seed * 1000 + i, COLOURS[names[i % 3]]), names[i % 3]) for i in range(n)]


def tar_of(members: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def web_dataset(n: int, seed: int = 0) -> bytes:
    """An archive of n labelled images."""
    members = []
    for key, content, label in labelled(n, seed):
        members += [(f"{key}.png", content), (f"{key}.cls", label.encode())]
    return tar_of(members)


def arrow_table(n: int, names: Sequence[str] | None = None, *, as_struct: bool = True) -> Any:
    """A table of n images as `datasets` makes it: with ``names``, labels are numbers that count them."""
    import pyarrow as pa

    found = labelled(n)
    contents = [content for _, content, _ in found]
    images = [{"bytes": content, "path": f"{key}.png"} for key, content, _ in found]
    labels = [names.index(label) if names else label for _, _, label in found]
    features = {"image": {"_type": "Image"}, "label": {"names": list(names or ()), "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()} if names else None
    return pa.table({"image": images if as_struct else contents, "label": labels}).replace_schema_metadata(metadata)


def save_like_datasets(folder: Path, table: Any, splits: Sequence[str] = ()) -> None:
    """Write what `Dataset.save_to_disk` writes, or with ``splits`` what `DatasetDict.save_to_disk` does."""
    import pyarrow as pa

    if splits:
        folder.mkdir(parents=True)
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
        for split in splits:
            save_like_datasets(folder / split, table)
        return
    folder.mkdir(parents=True)
    name = "data-00000-of-00001.arrow"
    with pa.ipc.new_stream(folder / name, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (folder / "dataset_info.json").write_text("{}")
