"""Read the tensors of any archive of torch.save or TorchScript, without running code in it."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from sotglp.errors import SotglpError
from sotglp.files.header import MAX_HEADER_BYTES

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_archive(path: Path) -> dict[str, Tensor]:
    """Return all tensors of an archive by their dotted names.

    Only plain tensors and containers are built. Every other class or function that the file names, such as the modules
    of a TorchScript archive or the settings of a trainer, is replaced by an empty object that keeps its attributes and
    does nothing, so that no code in the file or in an installed package runs.

    Raises
    ------
    SotglpError
        If the file is no such archive, or a tensor is not inside it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except SotglpError:
        raise
    except Exception as error:  # zipfile, pickle and torch each raise their own kinds
        raise SotglpError(f"{path} can't be read as an archive of torch.save or TorchScript: {error}") from error


def _read(path: Path, archive: zipfile.ZipFile) -> dict[str, Tensor]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    # What is read: TorchScript compresses its code, which isn't.
    read = [entry for name, entry in entries.items() if name in pickles or "/data/" in name]
    is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in read)
    if len(pickles) != 1 or is_packed or sum(entry.file_size for entry in read) > path.stat().st_size:
        raise SotglpError(f"{path} isn't an archive of torch.save since torch 1.6 or of TorchScript")
    if entries[pickles[0]].file_size > MAX_HEADER_BYTES:
        raise SotglpError(f"{path} has a pickle of more than {MAX_HEADER_BYTES} bytes")
    with archive.open(pickles[0]) as file:
        _check_numbers(file, entries[pickles[0]].file_size)
    folder = pickles[0].removesuffix("data.pkl")
    with archive.open(pickles[0]) as file:
        content = _Reader(file, archive, folder).load()
    tensors: dict[str, Tensor] = {}
    _collect(content, "", tensors, set())
    if not tensors:
        raise SotglpError(f"{path} holds no tensors")
    return tensors


def _check_numbers(file: IO[bytes], size: int) -> None:
    """Refuse numbers of places that the pickle is too short to fill, for which Python would take memory."""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name.endswith("PUT") and int(argument or 0) > size:
            raise SotglpError("its pickle is damaged or means harm")


def _collect(value: Any, name: str, tensors: dict[str, Tensor], above: set[int]) -> None:
    """Add the tensors inside containers and inert objects to ``tensors``, by dotted names."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return
    if isinstance(value, _Inert):
        value = {**value.items, **value.attributes}
    if not isinstance(value, dict) or id(value) in above or len(above) > 100:
        return
    for key, part in value.items():
        if isinstance(key, str):
            _collect(part, f"{name}.{key}" if name else key, tensors, above | {id(value)})


class _Inert:
    """Stands for an object of another class: keeps its attributes and items, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        made = super().__new__(cls)
        made.attributes, made.items = {}, {}
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        self.attributes: dict[Any, Any]
        self.items: dict[Any, Any]

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, _: Any) -> None:
        """Leave out an element of a list."""

    def extend(self, _: Any) -> None:
        """Leave out elements of a list."""

    def add(self, _: Any) -> None:
        """Leave out an element of a set."""


class _Reader(pickle.Unpickler):
    """Unpickles containers and plain tensors; everything else becomes an :class:`_Inert`."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the pickle stands for here."""
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _tensor if name == "_rebuild_tensor_v2" else _parameter
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return _Inert

    def persistent_load(self, pid: Any) -> Any:
        """Return the values of a storage in the archive, (n,)."""
        _, dtype, key, _, n_values = pid
        if not isinstance(dtype, torch.dtype):
            raise SotglpError("it holds a tensor of an unknown type")
        if key not in self._storages:
            content = self._archive.read(f"{self._folder}data/{key}")
            if len(content) != n_values * dtype.itemsize:
                raise SotglpError("a tensor isn't inside the file")
            self._storages[key] = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0)
        return self._storages[key]


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """Return the part of a storage that is a tensor; its strides must not repeat values."""
    n_values = 1
    for length in size:
        n_values *= length
    if n_values > len(storage):
        raise SotglpError("a tensor isn't inside the file")
    return storage.as_strided(size, stride, offset)


def _parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor
