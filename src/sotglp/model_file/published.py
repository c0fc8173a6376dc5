"""Read the prompts that the published implementation of SOT-GLP trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.backbone.torch_archive import read_archive
from sotglp.errors import SotglpError, SotglpWarning, some_names
from sotglp.methods.sot_glp import SOTGLP

_STATE = "state_dict."
_GLOBAL, _LOCAL, _PROJECTION = "global_prompt", "local_prompts", "local_proj.linear.weight"
# The published class defines and saves these, but its predictions don't use them.
_UNUSED = ("multi_head_attention_layer.", "ff_begin.", "ln1_begin.", "ln2_begin.", "A", "B")


def load_published(
    path: Path, backbone: Backbone, class_names: Sequence[str], *, top_k: int = 10, template: str = "A photo of a {}"
) -> SOTGLP:
    """Build a model from a checkpoint (``.ckpt``) of the published implementation, of which no code runs.

    Parameters
    ----------
    path : Path
        The checkpoint. It holds the contexts of M global and C x N local prompts and, unless the model is
        projection-free, the (W, W) projection; not the class names.
    backbone : Backbone
        The model that the prompts were trained on; for the published results OpenAI's ViT-B/16.
    class_names : sequence of str
        C names in the order of the run.
    top_k : int, default 10
        Patches in the support, the largest of the run's ``--topk``.
    template : str, default "A photo of a {}"
        Template of the run, whose number of tokens is that of the contexts.

    Raises
    ------
    SotglpError
        If the file can't be read, holds no prompts of SOT-GLP, or they don't fit the backbone, classes or template.

    Warns
    -----
    SotglpWarning
        If the checkpoint holds tensors that neither implementation is known to use.
    """
    tensors = read_archive(path)
    state = {name.removeprefix(_STATE): tensor for name, tensor in tensors.items() if name.startswith(_STATE)}
    missing = [name for name in (_GLOBAL, _LOCAL) if name not in state]
    if missing:
        raise SotglpError(
            f"{path} isn't a checkpoint of the published SOT-GLP, since it holds no {_STATE}{missing[0]}: give a .ckpt "
            "file that its training wrote"
        )
    contexts, local = state[_GLOBAL], state[_LOCAL]
    if local.ndim != 4:
        raise SotglpError(
            f"{path} holds {_LOCAL} of shape {tuple(local.shape)} where SOT-GLP has (classes, prompts, tokens, width), "
            "so it is probably of GalLoP, which isn't read"
        )
    if len(local) != len(class_names):
        raise SotglpError(
            f"{path} holds prompts of {len(local)} classes, and {len(class_names)} names were given: give the names of "
            "the run, in its order"
        )
    model = SOTGLP(
        backbone,
        class_names,
        n_global_prompts=len(contexts),
        n_local_prompts=local.shape[1],
        top_k=top_k,
        template=template,
        learn_projection=_PROJECTION in state,
    )
    _set(model.global_prompts, contexts, _GLOBAL, path)
    _set(model.local_prompts, local, _LOCAL, path)
    if _PROJECTION in state:
        _set(model.local_projection, state[_PROJECTION], _PROJECTION, path)
    known = (_GLOBAL, _LOCAL, _PROJECTION)
    others = [name for name in state if name not in known and not name.startswith(_UNUSED)]
    if others:
        warnings.warn(f"{path} also holds {some_names(others)}, which are left out", SotglpWarning, stacklevel=2)
    return model.eval()


@torch.no_grad()
def _set(parameter: Tensor | None, values: Tensor, name: str, path: Path) -> None:
    assert parameter is not None
    if values.shape != parameter.shape:
        raise SotglpError(
            f"{path} holds {name} of shape {tuple(values.shape)} where the backbone and the template need "
            f"{tuple(parameter.shape)}: give the backbone and the template of the run"
        )
    parameter.copy_(values)
