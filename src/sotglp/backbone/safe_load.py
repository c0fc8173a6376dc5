"""Checks of weight files from untrusted sources, before they are read."""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from sotglp.backbone.weight_layouts import unwrapped
from sotglp.errors import SotglpError
from sotglp.files.header import MAX_HEADER_BYTES, check_header_length

_REMEDY = "save its state_dict as .safetensors"
_CONVERT = "convert it with `sotglp convert-weights IN OUT.safetensors`, which reads its tensors and runs no code"

_OTHER_FILES = {
    b"version https://git-lfs": "is a Git-LFS pointer without the weights: run `git lfs pull` in its repository",
    b"<!doctype html": "is a web page: download the file itself, such as with `hf download`",
    b"<html": "is a web page: download the file itself, such as with `hf download`",
}
"""First bytes, in lower case, of files that people find in the place of weights."""

# Everything else that torch allows under weights_only allocates memory by a number in the file, or is not a plain
# tensor.
_PLAIN_TENSORS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch Size|"
    r"torch (Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)


def check_weight_file(path: Path) -> None:
    """Reject a weight file that could run code, or allocate more memory than its size suggests, without reading it.

    A .safetensors file can do neither once its header has a reasonable length. A file of ``torch.save`` is a pickle: it
    may contain plain tensors only, uncompressed, in the format of torch 1.6 and later. Older formats and TorchScript
    archives are not read.

    A rejected file raises a SotglpError, a damaged one any exception of zipfile, pickletools or torch.
    """
    with open(path, "rb") as file:
        first = file.read(64).lstrip().lower()
    if not path.stat().st_size:
        raise SotglpError(f"the weight file {path} can't be read: it is empty, so download it again")
    for start, what in _OTHER_FILES.items():
        if first.startswith(start):
            raise SotglpError(f"the weight file {path} {what}")
    if path.suffix == ".safetensors":
        check_header_length(path, "weight file")
        return
    with open(path, "rb") as file:
        begins_as_archive = file.read(4) == b"PK\x03\x04"
    if not begins_as_archive:
        raise SotglpError(
            f"the weight file {path} isn't an archive of torch.save since torch 1.6, and isn't read since it could run "
            f"code: {_REMEDY}"
        )
    with zipfile.ZipFile(path) as archive:
        _check_archive(path, archive)
    _check_tensor_sizes(path)


def _check_archive(path: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise SotglpError(
            f"the weight file {path} is a TorchScript archive, which isn't read since it can contain code: {_CONVERT}"
        )
    is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
    if is_packed or sum(entry.file_size for entry in entries) > path.stat().st_size or not pickles:
        raise SotglpError(f"the weight file {path} is an archive, but not from torch.save: {_REMEDY}")
    for entry in pickles:
        if entry.file_size > MAX_HEADER_BYTES:
            raise SotglpError(f"the weight file {path} has a pickle of more than {MAX_HEADER_BYTES} bytes: {_REMEDY}")
        with archive.open(entry) as file:
            _check_pickle(path, file)


def _check_pickle(path: Path, file: IO[bytes]) -> None:
    """Check a pickle's opcodes without running them."""
    for opcode, argument, _ in pickletools.genops(file):
        # Later protocols take names from the stack, where they can't be checked opcode by opcode; torch.save uses 2.
        is_hidden = opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")
        if is_hidden or (opcode.name == "GLOBAL" and not _PLAIN_TENSORS.fullmatch(str(argument))):
            named = "" if is_hidden else f" ({str(argument)[:60]!r})"
            raise SotglpError(
                f"the weight file {path} holds more than plain tensors{named} and isn't read since it could run code: "
                f"{_CONVERT}"
            )


def _check_tensor_sizes(path: Path) -> None:
    """Reject tensors whose strides repeat a few bytes, which resizing or converting them would write out."""
    # Mapped, so that the values of the tensors are not read.
    state = unwrapped(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    if not isinstance(state, dict) or not state:
        raise SotglpError(f"the weight file {path} has no state_dict: {_REMEDY}")
    n_bytes = path.stat().st_size
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.nbytes > n_bytes:
            raise SotglpError(
                f"the weight file {path} has {str(name)[:60]!r} in its state_dict, which isn't a tensor inside the "
                f"file: {_REMEDY}"
            )
