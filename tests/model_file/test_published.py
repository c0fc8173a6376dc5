from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sotglp import SotglpError, SotglpWarning
from sotglp.model_file.published import load_published
from support.published import write_checkpoint
from support.samples import Reference


def test_a_checkpoint_gives_the_published_numbers(reference: Reference, tmp_path: Path) -> None:
    sizes, numbers = reference.sizes, reference.numbers
    path = write_checkpoint(tmp_path / "seed1.ckpt", numbers)
    model = load_published(
        path, reference.backbone, sizes["class_names"], top_k=sizes["top_k"], template=sizes["template"]
    )
    assert (model.local_projection is None) == ("local_proj" not in numbers)
    torch.testing.assert_close(model.predict_proba(numbers["image"]), numbers["prob"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"global_prompt": None}, "global_prompt"),
        ({"local_prompts": torch.zeros(4, 4, 32)}, "GalLoP"),
        ({"local_prompts": torch.zeros(99, 4, 4, 32)}, "99 classes"),
        ({"global_prompt": torch.zeros(3, 4, 7)}, "shape"),
        ({"global_prompt": torch.zeros(3, 9, 32)}, "template"),
    ],
)
def test_what_does_not_fit_is_named(reference: Reference, tmp_path: Path, changes: Any, named: str) -> None:
    path = write_checkpoint(tmp_path / "m.ckpt", reference.numbers, **changes)
    names, template = reference.sizes["class_names"], reference.sizes["template"]
    with pytest.raises(SotglpError, match=named):
        load_published(path, reference.backbone, names, top_k=1, template=template)


def test_unknown_tensors_are_reported(reference: Reference, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m.ckpt", reference.numbers, **{"visual.proj": torch.ones(2)})
    names, template = reference.sizes["class_names"], reference.sizes["template"]
    with pytest.warns(SotglpWarning, match=r"visual\.proj"):
        load_published(path, reference.backbone, names, top_k=1, template=template)
