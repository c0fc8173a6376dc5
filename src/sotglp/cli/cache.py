"""``sotglp cache``: list and prune the feature cache."""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from typing import Annotated

from typer import Option

from sotglp.cli import options
from sotglp.cli.inputs import command_group
from sotglp.console.output import check_outputs, emit
from sotglp.console.table import counted
from sotglp.console.text import readable_size
from sotglp.errors import SotglpError
from sotglp.features.cache_folder import default_cache_dir
from sotglp.features.prune import cache_groups, prune

UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

cache = command_group("cache", "List and prune the image features that are kept on disk.")


@cache.command("list")
def list_cache(cache_dir: options.CacheDir = None, json_file: options.JsonFile = None) -> None:
    """List the contents of the feature cache, the most recently used first.

    [bold]Example[/bold]: sotglp cache list
    """
    check_outputs({"--json": json_file})
    root = cache_dir or default_cache_dir()
    found = cache_groups(root)
    n_bytes = sum(group.n_bytes for group in found)
    lines = []
    for group in found:
        used = f", last used {group.last_used:%Y-%m-%d}" if group.last_used else ""
        lines.append(
            f"{group.path.name}  {readable_size(group.n_bytes)}, {counted(group.n_entries, 'entry', 'entries')}{used}"
        )
        lines += [f"    {name}={value}" for name, value in group.about.items()]
    entries = [
        asdict(group) | {"path": str(group.path), "last_used": group.last_used.isoformat() if group.last_used else None}
        for group in found
    ]
    result = {"cache_dir": str(root), "n_bytes": n_bytes, "groups": entries}
    emit([*lines, f"{readable_size(n_bytes)} in {root}"], result, json_file)


@cache.command("prune")
def prune_cache(
    older_than: Annotated[
        float | None, Option(min=0, metavar="DAYS", help="Remove entries that were not used for so many days.")
    ] = None,
    keep: Annotated[
        str | None,
        Option(metavar="SIZE", help="Remove the least recently used entries above this size, such as 10GB."),
    ] = None,
    everything: Annotated[bool, Option("--all", help="Remove everything.")] = False,
    cache_dir: options.CacheDir = None,
    json_file: options.JsonFile = None,
) -> None:
    """Remove features from the cache; they are computed again when they are needed.

    [bold]Example[/bold]: sotglp cache prune --older-than 30 --keep 10GB
    """
    check_outputs({"--json": json_file})
    if older_than is None and keep is None and not everything:
        raise SotglpError("nothing selects what to remove: give --older-than DAYS, --keep SIZE or --all")
    if older_than is not None and not math.isfinite(older_than):
        raise SotglpError(f"older_than = {older_than} is not a number of days: give one such as 30")
    keep_bytes = None if keep is None else _bytes_of(keep)
    root = cache_dir or default_cache_dir()
    removed = prune(root, older_than_days=older_than, keep_bytes=keep_bytes, everything=everything)
    line = f"removed {counted(removed.n_entries, 'entry', 'entries')}, {readable_size(removed.n_bytes)}, from {root}"
    emit([line], {"cache_dir": str(root), **asdict(removed)}, json_file)


def _bytes_of(size: str) -> int:
    parts = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([kmgt]?)(i?)b", size.strip().lower())
    if parts is None or (parts[3] and not parts[2]):
        raise SotglpError(f"keep = {size!r:.100} is not a size: give one such as 10GB, 1.5GiB or 500MB")
    return int(float(parts[1]) * (1024 if parts[3] else 1000) ** UNITS[parts[2]])
