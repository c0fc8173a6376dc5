"""Write the table that `sotglp info --backbones` prints: all architectures of open_clip and the packaged models.

Each architecture is built on the meta device, without weights and memory. Run it after an update of open_clip; a test
compares names and tags. Sizes of Hugging Face text towers are those of :func:`benchmarks.towers.published_config`.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import open_clip
import torch

from benchmarks.towers import published_config
from sotglp.backbone import Backbone
from sotglp.backbone.architectures import supported_backbones
from sotglp.backbone.embedded import EMBEDDED, TAG
from sotglp.backbone.readers import make_reader

TABLE = Path(__file__).parents[1] / "src" / "sotglp" / "presets" / "backbone_table.json"

FAMILIES = {
    "SigLIP2": "SigLIP2",
    "nllb": "NLLB-CLIP",
    "SigLIP": "SigLIP",
    "CLIPA": "CLIPA",
    "coca": "CoCa",
    "convnext": "ConvNeXt",
    "EVA": "EVA",
    "ViTamin": "ViTamin",
    "MobileCLIP2": "MobileCLIP2",
    "MobileCLIP": "MobileCLIP",
    "PE-Core": "PE-Core",
    "worldwide": "MetaCLIP 2",
    "xlm-roberta": "CLIP, XLM-R",
    "roberta": "CLIP, RoBERTa",
    "mt5": "CLIP, mT5",
    "swin": "Swin",
    "RN": "ResNet",
}
"""Family by a part of the name, the first that matches; otherwise it is the vision transformer of CLIP."""

LICENCES = {"openai": "MIT", "metaclip_400m": "CC-BY-NC", "metaclip_fullcc": "CC-BY-NC", "webli": "Apache 2.0"}
"""Licence of the weights of a tag, where a source states it for all of them; open_clip records none with its tags."""

LAION = ("laion2b", "laion400m", "datacomp_xl")
"""Beginnings of tags whose weights are under the MIT licence if LAION published them; docs/backbones.md has sources."""


def licence(name: str, tag: str) -> str | None:
    """Return the licence of weights, None where we know no source."""
    if name in EMBEDDED:
        return {"photo": "Apache 2.0 and MIT", "tiny": "MIT"}[name]
    source = open_clip.get_pretrained_cfg(name, tag).get("hf_hub", "")
    if tag.startswith(LAION) and (source.startswith("laion/") or tag in ("laion400m_e31", "laion400m_e32")):
        return "MIT"
    return LICENCES.get(tag)


def family(name: str) -> str:
    """Return the family of an architecture."""
    if name in EMBEDDED:
        return "packaged"
    return next((title for part, title in FAMILIES.items() if part in name), "CLIP")


def measured(clip: Any) -> dict[str, Any]:
    """Return parameters, image side and patches of a model on any device."""
    reader = make_reader(clip.visual, "value")
    size = clip.visual.image_size
    height = size if isinstance(size, int) else size[0]
    return {
        "parameters": sum(value.numel() for value in clip.parameters()),
        "image_size": height,
        "patches": reader.patch_grid[0] * reader.patch_grid[1],
    }


def row(name: str, weights: dict[str, str | None], is_supported: bool) -> dict[str, Any]:
    """Return the row of an architecture; what is not supported is not built."""
    found: dict[str, Any] = {"parameters": None, "image_size": None, "patches": None}
    if name in EMBEDDED:
        found = measured(Backbone.load(name).clip)
    elif is_supported:
        with torch.device("meta"), torch.no_grad():
            found = measured(open_clip.create_model(name, device="meta", pretrained_text=False).eval())
        if "mt5" in name:  # whose published sizes are not in benchmarks.towers
            found["parameters"] = None
    return {"name": name, "family": family(name), **found, "weights": weights, "supported": is_supported}


def main() -> None:
    """Write the table."""
    logging.disable()
    warnings.simplefilter("ignore")
    if hasattr(open_clip.hf_model, "AutoConfig"):
        open_clip.hf_model.AutoConfig.from_pretrained = published_config
    weights: dict[str, dict[str, str | None]] = defaultdict(dict)
    for name, tag in [*((name, TAG) for name in EMBEDDED), *open_clip.list_pretrained()]:
        weights[name][tag] = licence(name, tag)
    supported = set(supported_backbones())
    rows = []
    for name in [*EMBEDDED, *open_clip.list_models()]:
        rows.append(row(name, weights[name], name in supported))
        print(rows[-1], file=sys.stderr, flush=True)
    rows.sort(key=lambda one: (one["parameters"] or float("inf"), one["name"]))
    lines = ",\n".join(f"  {json.dumps(one)}" for one in rows)
    TABLE.write_text(f'{{"open_clip": {json.dumps(open_clip.__version__)}, "backbones": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
