"""Files that mean harm: each would make a marker file if anything in it ran."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn


class Payload:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (f"open({self.marker!r}, 'w').close()",))


class Bytes:
    """As many bytes of memory as it says."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (bytearray, (2**40,))


def plain_pickle(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Payload(marker)}))


def old_pickle(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Payload(marker)}, protocol=2))


def torch_archive(path: Path, marker: Path) -> None:
    torch.save({"state_dict": {"logit_scale": Payload(marker)}}, path)


def later_protocol(path: Path, marker: Path) -> None:
    torch.save({"logit_scale": Payload(marker)}, path, pickle_protocol=4)


def legacy_torch(path: Path, marker: Path) -> None:
    torch.save({"logit_scale": Payload(marker)}, path, _use_new_zipfile_serialization=False)


def legacy_tar(path: Path, marker: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Payload(marker), protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def torchscript(path: Path, marker: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def zip_slip(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"../{marker.name}", "out")
        archive.writestr(str(marker), "out")
        archive.writestr("archive/data.pkl", pickle.dumps({"logit_scale": Payload(marker)}, protocol=2))


def allocation(path: Path, marker: Path) -> None:
    torch.save({"logit_scale": Bytes()}, path)


def quantised(path: Path, marker: Path) -> None:
    torch.save({"logit_scale": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)}, path)


def packed_zip(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(2**26))


def repeated_bytes(path: Path, marker: Path) -> None:
    torch.save({"positional_embedding": torch.zeros(1, 1).expand(2**20, 2**20)}, path)


def no_tensors(path: Path, marker: Path) -> None:
    torch.save(OrderedDict(logit_scale="one"), path)


def empty(path: Path, marker: Path) -> None:
    torch.save({}, path)


PICKLES = (plain_pickle, old_pickle, torch_archive, later_protocol, legacy_torch, legacy_tar, torchscript, zip_slip)
GREEDY = (allocation, quantised, packed_zip, repeated_bytes, no_tensors, empty)


def safetensors_bytes(header: object, body: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file of this header; ``length`` is what it says of the header's length, if not the truth."""
    told = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(told) if length is None else length) + told + body


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


OURS = {"__metadata__": {"sotglp": "{}"}}

MALFORMED = {
    "no header": b"",
    "a header of 2**63 bytes": safetensors_bytes({}, length=2**63),
    "a header of 100 MB": safetensors_bytes(b"{}" + b" " * 100_000_000),
    "a header of 17 MiB": safetensors_bytes(OURS | {"a" * 17 * 2**20: tensor("F32", [0], 0, 0)}),
    "a header beyond the file": safetensors_bytes({}, length=5000),
    "tensors beyond the file": safetensors_bytes(OURS | {"a": tensor("F32", [2**40], 0, 2**42)}),
    "sizes beyond 64 bits": safetensors_bytes(OURS | {"a": tensor("F32", [2**62, 4], 0, 0)}),
    "overlapping tensors": safetensors_bytes(
        OURS | {"a": tensor("F32", [4], 0, 16), "b": tensor("F32", [4], 8, 24)}, bytes(24)
    ),
    "two tensors of the same bytes": safetensors_bytes(
        OURS | {"a": tensor("F32", [4], 0, 16), "b": tensor("F32", [4], 0, 16)}, bytes(16)
    ),
    "bytes of no tensor": safetensors_bytes(OURS | {"a": tensor("F32", [4], 16, 32)}, bytes(32)),
    "an unknown type": safetensors_bytes(OURS | {"a": tensor("X9", [4], 0, 16)}, bytes(16)),
    "a negative size": safetensors_bytes(OURS | {"a": tensor("F32", [-4], 0, 16)}, bytes(16)),
    "JSON nested 100,000 deep": safetensors_bytes(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "metadata that is no text": safetensors_bytes({"__metadata__": {"sotglp": 3}}),
}


def with_record(record: str, tensors: dict[str, Any] | None = None, body: bytes = b"") -> bytes:
    return safetensors_bytes({"__metadata__": {"sotglp": record}, **(tensors or {})}, body)


def changed_model(path: Path, record: dict[str, Any], tensors: dict[str, torch.Tensor | None] | None = None) -> bytes:
    """A model file with other entries in its record (``backbone.name`` is one of its backbone) and other tensors."""
    from safetensors.torch import save

    with safe_open(path, framework="pt") as file:
        told = json.loads(file.metadata()["sotglp"])
        held: dict[str, torch.Tensor | None] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for place, value in record.items():
        within, _, name = place.rpartition(".")
        (told[within] if within else told)[name] = value
    whole = {name: value for name, value in (held | (tensors or {})).items() if value is not None}
    content: bytes = save(whole, {"sotglp": json.dumps(told)})
    return content
