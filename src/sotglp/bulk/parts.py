"""A folder of predictions: one Parquet file a shard, and a manifest of the finished ones."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sotglp.bulk.predict_shard import BulkSettings, ShardPredictions
from sotglp.console.prediction_files import METADATA, check_parquet
from sotglp.console.text import as_utf8
from sotglp.errors import SotglpError
from sotglp.files.atomic import ClaimedError, check_output, claim, os_reason, write_file
from sotglp.shards.shard import Shard

MANIFEST = "manifest.jsonl"
"""Name of the manifest: settings in the first line, then a line for each finished shard."""

_MARK = "sotglp predictions by shard"


class Parts:
    """The folder that predictions are written to; a second process can't write to it at the same time.

    Attributes
    ----------
    finished : dict of int to dict
        Lines of the manifest by the position of their shard.
    """

    def __init__(self, folder: Path, settings: BulkSettings, classes: Sequence[str], shards: Sequence[Shard]) -> None:
        """Open a folder, or create it; raise a SotglpError if it holds anything but these predictions."""
        self._folder, self._settings, self._classes = folder, settings, tuple(classes)
        self._shards = shards
        self.finished: dict[int, dict[str, Any]] = {}
        check_parquet(folder)
        manifest = folder / MANIFEST
        header = {"kind": _MARK, **settings.fingerprint()}
        if not os.path.exists(manifest):
            if os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
                raise SotglpError(f"{folder} exists and isn't a folder of predictions: give another name")
            check_output(manifest, force=False)
            write_file(manifest, lambda beside: beside.write_bytes(_line(header)), force=False)
        self._file = _claimed(manifest)
        self._read(header)

    def close(self) -> None:
        """Let another process write to the folder."""
        self._file.close()

    def write(self, position: int, found: ShardPredictions) -> None:
        """Write the rows of a shard and note it in the manifest, in this order."""
        import pyarrow.parquet

        shard, name = self._shards[position], part_name(position)
        table = self._table(shard, found)
        write_file(self._folder / name, lambda beside: pyarrow.parquet.write_table(table, beside), force=True)
        line = {
            "part": position,
            "file": name,
            "shard": shard.name,
            "version": shard.version,
            "n": len(found.paths),
            "labels": dict(Counter(table.column("label").to_pylist())),
            "unreadable": [{"path": error.source, "reason": error.reason} for error in found.unreadable],
            "left_out": dict(found.notes.left_out),
            "losses": dict(found.notes.losses),
        }
        try:
            self._file.write(_line(line))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SotglpError(
                f"{self._folder / MANIFEST} can't be written ({os_reason(error)}): free some space and repeat the "
                "command to continue"
            ) from error
        self.finished[position] = line

    def _table(self, shard: Shard, found: ShardPredictions) -> Any:
        import pyarrow as pa

        n = len(found.paths)
        text = pa.string()
        columns = {
            "path": pa.array([as_utf8(path).decode() for path in found.paths], text),
            "shard": pa.array([as_utf8(shard.name).decode()] * n, text),
            "label": pa.array(found.labels(self._settings, self._classes), text),
            "most_probable": pa.array([self._classes[index] for index in found.most_probable.tolist()], text),
            "probability": pa.array(found.probabilities, pa.float32()),
            "ood_score": pa.array(found.ood_scores, pa.float32()),
            "is_unknown": pa.nulls(n, pa.bool_()) if found.is_unknown is None else pa.array(found.is_unknown),
        }
        if found.sets is not None:
            names = [[self._classes[index] for index in members] for members in found.sets]
            columns["set"] = pa.array(names, pa.list_(text))
        return pa.table(columns).replace_schema_metadata(METADATA)

    def _read(self, header: Mapping[str, Any]) -> None:
        """Read the manifest, and remove a last line that a killed process left incomplete."""
        content = self._file.read()
        whole, _, torn = content.rpartition(b"\n")
        manifest = self._folder / MANIFEST
        try:
            lines = [json.loads(line) for line in whole.split(b"\n")]
            kind = lines[0].get("kind")
            known = {int(line["part"]): line for line in lines[1:]}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise SotglpError(f"{manifest} is damaged: give another folder") from error
        if kind != _MARK:
            raise SotglpError(f"{manifest} isn't a manifest of predictions: give another folder")
        if changed := [name for name in header if lines[0].get(name) != json.loads(json.dumps(header[name]))]:
            raise SotglpError(
                f"{self._folder} holds predictions of another {changed[0]} ({_short(lines[0].get(changed[0]))}, now "
                f"{_short(header[changed[0]])}): give another folder, or the same model and options to continue"
            )
        for position, line in known.items():
            now = self._shards[position] if position < len(self._shards) else None
            if now is None or (line["shard"], line["version"]) != (now.name, now.version):
                raise SotglpError(
                    f"{self._folder} holds predictions of other images, or they have changed: its {line['file']} is "
                    f"from {line['shard']}; give another folder, or the same images to continue"
                )
        # A part that has been removed since is predicted again.
        self.finished = {at: line for at, line in known.items() if os.path.isfile(self._folder / part_name(at))}
        if torn:
            self._file.seek(len(content) - len(torn))
            self._file.truncate()


def part_name(position: int) -> str:
    """Return the name of the Parquet file of a shard."""
    return f"part-{position:05d}.parquet"


def _claimed(manifest: Path) -> IO[bytes]:
    try:
        # Windows has no locks of this kind.
        return claim(manifest) or manifest.open("rb+")
    except ClaimedError:
        raise SotglpError(f"another process writes to {manifest.parent}: wait for it, or give another folder") from None
    except OSError as error:
        raise SotglpError(f"{manifest} can't be opened ({os_reason(error)}); check its permissions") from error


def _line(entry: Mapping[str, Any]) -> bytes:
    return as_utf8(json.dumps(entry, ensure_ascii=False) + "\n")


def _short(value: Any) -> str:
    return str(value)[:19]
