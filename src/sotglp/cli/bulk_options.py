"""Checks of ``sotglp predict --out`` that need no torch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from sotglp.errors import SotglpError
from sotglp.shards.addresses import full_address, is_address
from sotglp.shards.find import is_sharded

_RESULTS = frozenset({".csv", ".json", ".jsonl", ".parquet", ".tsv"})


def check_out(out: Path, model_file: Path, other_outputs: Sequence[str]) -> None:
    """Refuse a folder of predictions that can't be written, before torch is loaded."""
    if other_outputs:
        raise SotglpError(f"--out and {other_outputs[0]} exclude each other: --out writes Parquet files of all rows")
    if out.suffix.lower() in _RESULTS and not out.is_dir():
        raise SotglpError(f"--out takes a folder, and {out} is probably a file: give {_option(out)} {out}")
    if is_address(full_address(str(out))):
        raise SotglpError(f"--out takes a folder of this machine, not {full_address(str(out))}: copy it afterwards")
    if model_file.suffix == ".onnx" or find_spec("torch") is None:
        raise SotglpError("--out needs the full installation and a model file, not an exported model")


def refuse_shards(images: Sequence[Path]) -> None:
    """Raise a SotglpError about images that are only read shard by shard."""
    for name in images:
        if is_sharded(name):
            raise SotglpError(
                f"{full_address(str(name))} is read shard by shard: give --out DIR, a folder for the predictions"
            )


def _option(out: Path) -> str:
    return {".json": "--json", ".jsonl": "--jsonl", ".parquet": "--parquet"}.get(out.suffix.lower(), "--csv")
