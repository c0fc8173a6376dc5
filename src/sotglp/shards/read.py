"""The images of one shard, whatever its kind, with damage reported by name."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator

from sotglp.errors import SotglpError, first_line
from sotglp.shards.addresses import file_system, opened
from sotglp.shards.shard import Item, Shard
from sotglp.shards.tables import arrow_items, parquet_items
from sotglp.shards.tar import tar_items

_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, MemoryError)


def read_items(shard: Shard, left_out: Counter[str]) -> Iterator[Item]:
    """Yield the images of a shard in order, not decoded; ``left_out`` counts files of an archive that are no images.

    A shard that is damaged or ends too early ends with an item that has this ``problem``. Raise a SotglpError if it
    can't be opened, or reading it fails for another reason, such as the network.
    """
    if shard.kind == "files":
        labels = shard.labels or (None,) * len(shard.files)
        yield from (Item(name, name, label) for name, label in zip(shard.files, labels, strict=True))
        return
    n_read = 0
    try:
        with opened(shard.name) as file:
            if shard.kind == "tar":
                items = tar_items(file, shard, left_out)
            elif shard.kind == "parquet":
                system, path = file_system(shard.name)
                items = parquet_items(file, shard, system.size(path))
            else:
                items = arrow_items(file, shard)
            for item in items:
                n_read += 1
                yield item
    except SotglpError:
        raise
    except Exception as error:  # of the packages for each file system, too
        if not _is_damage(error):
            raise SotglpError(
                f"reading {shard.name} failed ({first_line(error)}): repeat the command to continue"
            ) from error
        problem = f"it is damaged or incomplete after {n_read} images ({first_line(error)}); write it again"
        yield Item(shard.name, None, None, problem)


def _is_damage(error: Exception) -> bool:
    """Whether a file's content caused an error, not the way to it, such as the network."""
    # pyarrow and bz2 raise an OSError without a number for damage.
    is_plain = type(error) in (OSError, gzip.BadGzipFile) and getattr(error, "errno", None) is None
    return isinstance(error, _DAMAGE) or is_plain or type(error).__module__.startswith("pyarrow")
