"""Convert a weight file that isn't read in place to safetensors, without running code in it."""

from __future__ import annotations

import os
from pathlib import Path

import safetensors.torch

from sotglp.backbone.torch_archive import read_archive
from sotglp.backbone.weight_layouts import WRAPPERS, to_open_clip
from sotglp.errors import SotglpError
from sotglp.files.atomic import write_file


def convert(source: Path, out: Path, *, force: bool) -> tuple[int, list[str]]:
    """Write the tensors of an archive as .safetensors with open_clip's names.

    Returns
    -------
    n_tensors : int
        Number of tensors written.
    dtypes : list of str
        Their number formats, sorted.

    Raises
    ------
    SotglpError
        If the source can't be read, or the output exists and ``force`` is off.
    """
    if not os.path.isfile(source):
        raise SotglpError(f"there is no weight file {source}")
    tensors = read_archive(source)
    for wrapper in WRAPPERS:
        inside = {key.removeprefix(f"{wrapper}."): one for key, one in tensors.items() if key.startswith(f"{wrapper}.")}
        if any(key.endswith("logit_scale") for key in inside):
            tensors = inside  # without the states of an optimizer beside the model
            break
    state = {name: tensor.contiguous().clone() for name, tensor in to_open_clip(tensors, source).items()}
    write_file(out, lambda path: safetensors.torch.save_file(state, path), force=force)
    return len(state), sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
