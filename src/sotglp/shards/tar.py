"""Images in a tar archive as WebDataset writes it, read in one pass without writing a file."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from sotglp.errors import SotglpError
from sotglp.images.formats import HEIC_SUFFIXES, IMAGE_SUFFIXES, ending, reads_heic
from sotglp.shards.shard import MAX_IMAGE_BYTES, TOO_LARGE, Item, Shard, entry_label, named_label

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Endings of archives, in lower case."""

_LABEL_SUFFIXES = (".cls", ".json", ".txt")
"""Files beside an image that may hold its label, the first that do count."""

_MAX_LABEL_BYTES = 2**20
_MAX_HEADER_BYTES = 2**20
_LONG_HEADERS = frozenset(
    {
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    }
)
"""Kinds of headers that continue in the data behind them, which tarfile reads into memory."""

_MAX_SAMPLE = 100
"""Images with one key."""


@dataclass
class _Sample:
    """Members of one key, which follow each other: its images and its label by suffix."""

    key: str
    images: list[tuple[str, bytes | None]] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)


class _Header(tarfile.TarInfo):
    """A header that ends the archive with an error if it is damaged, where tarfile would end it silently."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if len(buf) != tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it has no end")
        if not any(buf):
            return super().frombuf(buf, encoding, errors)  # raises that this is the end
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if header.type in _LONG_HEADERS and header.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"it has a header of {header.size} bytes")
        return header


def tar_items(file: IO[bytes], shard: Shard, left_out: Counter[str]) -> Iterator[Item]:
    """Yield the images of an archive in order; ``left_out`` counts the other files by suffix.

    Names are only read, never used as paths. Members whose names are equal up to the first dot of the last part belong
    together: ``.cls``, ``.json`` or ``.txt`` beside an image has its label. Raise an error of :mod:`tarfile` or of a
    decompressor where the archive is damaged or ends too early.
    """
    sample = _Sample("")
    with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Header, bufsize=2**18) as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all headers
            name = member.name
            base = posixpath.basename(name)
            if member.isdir() or base.startswith(".") or "__MACOSX" in name.split("/"):
                continue
            key = posixpath.join(posixpath.dirname(name), base.partition(".")[0])
            if key != sample.key:
                yield from _items(sample, shard)
                sample = _Sample(key)
            suffix = ending(base)
            is_image = suffix in IMAGE_SUFFIXES or (suffix in HEIC_SUFFIXES and reads_heic())
            if not member.isreg() or not (is_image or suffix in _LABEL_SUFFIXES):
                left_out[suffix] += 1
            elif is_image:
                if len(sample.images) == _MAX_SAMPLE:
                    raise tarfile.ReadError(f"more than {_MAX_SAMPLE} images have the key {key[:100]}")
                sample.images.append((name, _content(archive, member) if member.size <= MAX_IMAGE_BYTES else None))
            elif member.size <= _MAX_LABEL_BYTES:
                sample.labels[suffix] = _content(archive, member)
    yield from _items(sample, shard)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # a regular file
    return file.read()


def _items(sample: _Sample, shard: Shard) -> Iterator[Item]:
    label = None
    for suffix in _LABEL_SUFFIXES:
        content = sample.labels.get(suffix)
        if content is not None and sample.images and label is None:
            label = _label(suffix, content, shard, sample.key)
    for name, image in sample.images:
        problem = "" if image is not None else TOO_LARGE
        yield Item(name, image, label, problem)


def _label(suffix: str, content: bytes, shard: Shard, key: str) -> str | None:
    value: Any = content
    if suffix == ".json":
        try:
            value = entry_label(json.loads(content), shard.columns)
        except (ValueError, RecursionError):
            return None
    try:
        return named_label(value, shard.class_names, f"{key} in {shard.name}")
    except SotglpError:
        if suffix == ".txt":  # a caption
            return None
        raise
