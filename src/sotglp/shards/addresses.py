"""Files by path or address, such as s3://bucket/part.tar, through fsspec."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from sotglp.errors import SotglpError, first_line
from sotglp.images.paths import local_path

# One slash is left of two where an address was made a path; one letter is a drive of Windows.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)(?:::|:/{1,2}(?=[^/]))", re.IGNORECASE)
_PACKAGES = {
    "s3": 's3fs: pip install "sotglp[s3]"',
    "s3a": 's3fs: pip install "sotglp[s3]"',
    "gs": "gcsfs: pip install gcsfs",
    "gcs": "gcsfs: pip install gcsfs",
    "http": "aiohttp: pip install aiohttp",
    "https": "aiohttp: pip install aiohttp",
    "az": "adlfs: pip install adlfs",
    "abfs": "adlfs: pip install adlfs",
}
_CHECKSUMS = ("ETag", "etag", "md5Hash", "blob_id", "crc32c")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


def full_address(name: str) -> str:
    """Return an address with both slashes, which :class:`pathlib.Path` makes one, or the local path of a name."""
    name = local_path(name)
    return name if os.path.exists(name) else _ADDRESS.sub(r"\1://", name, count=1) if _ADDRESS.match(name) else name


def is_address(name: str) -> bool:
    """Whether a name is an address that fsspec opens, not a path of this machine."""
    return _ADDRESS.match(name) is not None and not os.path.exists(name)


def file_system(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or an address, and the path there.

    Raise a SotglpError if there is none of this kind, or its package is missing.
    """
    import fsspec

    scheme = address.partition(":")[0].lower() if is_address(address) else "file"
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = _PACKAGES.get(scheme, f"another package ({first_line(error)})")
        raise SotglpError(f"reading {address} requires {package}") from error
    except Exception as error:  # of the packages for each kind
        raise SotglpError(f"{address} can't be opened ({first_line(error)}); check the address") from error
    return system, str(path)


def address_at(system: Any, path: str) -> str:
    """Return the path of a local file, or the address of another one."""
    scheme = system.protocol if isinstance(system.protocol, str) else system.protocol[0]
    return path if scheme in ("file", "local") else str(system.unstrip_protocol(path))


def version_of(info: Mapping[str, Any]) -> str:
    """Return what changes with the content of a file, by what its file system says of it."""
    checksum = next((str(info[name]) for name in _CHECKSUMS if info.get(name)), None)
    changed = checksum or next((str(info[name]) for name in _TIMES if info.get(name)), "")
    return f"{info.get('size')} bytes, {changed}"


@contextmanager
def opened(address: str) -> Iterator[IO[bytes]]:
    """Open a file to read it from the beginning. Raise a SotglpError if it can't be opened."""
    system, path = file_system(address)
    try:
        file = system.open(path, "rb")
    except Exception as error:  # of the packages for each kind
        missing = isinstance(error, FileNotFoundError)
        reason = "it does not exist" if missing else getattr(error, "strerror", None) or first_line(error)
        raise SotglpError(f"{address} can't be opened ({reason}); check the name and your access to it") from error
    with file:
        yield file
