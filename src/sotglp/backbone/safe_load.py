"""Weight files that anybody may have made: what they may hold to be read at all."""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from sotglp.errors import SotglpError
from sotglp.files.header import MAX_HEADER_BYTES, check_header_length

"""Most bytes of what a file tells of its tensors; of 20,000 classes it takes less than one 2**20."""

_REMEDY = "save its state_dict as .safetensors"

# Everything else that torch lets a pickle name under weights_only takes memory by a number in the file, or is no
# ordinary tensor.
_PLAIN_TENSORS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch Size|"
    r"torch (Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)


def check_weight_file(path: Path) -> None:
    """Refuse a weight file that could run code, or take more memory than its size suggests, without reading it.

    A .safetensors file can do neither, once its header is of a reasonable length. A file of ``torch.save`` is a pickle:
    it may name plain tensors and nothing else, in the format of torch 1.6 and later, unpacked. Formats before that and
    TorchScript archives are not read at all.

    Parameters
    ----------
    path : Path
        A file; what it is follows from the ending of its name.

    Raises
    ------
    SotglpError
        If it is refused, with what to do instead.
    Exception
        Of some kind from zipfile, pickletools or torch, if the file is damaged.
    """
    if path.suffix == ".safetensors":
        check_header_length(path, "weight file")
        return
    with open(path, "rb") as file:
        begins_as_archive = file.read(4) == b"PK\x03\x04"
    if not begins_as_archive:
        raise SotglpError(
            f"the weight file {path} is no archive as torch.save has written it since torch 1.6, and is not read since "
            f"it could run code: {_REMEDY}"
        )
    with zipfile.ZipFile(path) as archive:
        _check_archive(path, archive)
    _check_tensor_sizes(path)


def _check_archive(path: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise SotglpError(
            f"the weight file {path} is a TorchScript archive, which is not read since it can hold code: {_REMEDY}"
        )
    is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
    if is_packed or sum(entry.file_size for entry in entries) > path.stat().st_size or not pickles:
        raise SotglpError(f"the weight file {path} is an archive, but not one that torch.save wrote: {_REMEDY}")
    for entry in pickles:
        if entry.file_size > MAX_HEADER_BYTES:
            raise SotglpError(f"the weight file {path} tells too much beside its tensors: {_REMEDY}")
        with archive.open(entry) as file:
            _check_pickle(path, file)


def _check_pickle(path: Path, file: IO[bytes]) -> None:
    """Look at a pickle's opcodes, which runs none of them."""
    for opcode, argument, _ in pickletools.genops(file):
        # Later protocols take names from the stack, where a look at one opcode doesn't see them; torch.save uses 2.
        is_hidden = opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")
        if is_hidden or (opcode.name == "GLOBAL" and not _PLAIN_TENSORS.fullmatch(str(argument))):
            named = "" if is_hidden else f" ({str(argument)[:60]!r})"
            raise SotglpError(
                f"the weight file {path} holds more than plain tensors{named} and is not read since it could run code: "
                f"{_REMEDY}"
            )


def _check_tensor_sizes(path: Path) -> None:
    """Refuse tensors that show a few bytes as many, which resizing them or a conversion would write out."""
    # Mapped, so that nothing of the tensors is read here.
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state:
        raise SotglpError(f"the weight file {path} holds no state_dict: {_REMEDY}")
    n_bytes = path.stat().st_size
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.nbytes > n_bytes:
            raise SotglpError(
                f"the weight file {path} has {str(name)[:60]!r} in its state_dict, which is no tensor within the file: "
                f"{_REMEDY}"
            )
