"""ImageNet's thousand classes: how its folders and how prompts name them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

# OpenAI's list says "missile" and "sunglasses" twice, which no classifier by prompts could tell apart. One of each pair
# goes by the first name that WordNet has for it.
_TOLD_APART = {"n04008634": "projectile", "n04355933": "sunglass"}


@cache
def imagenet_names() -> Mapping[str, str]:
    """Names of the 1000 classes by WordNet number (n01440764), in the order of the class numbers.

    The numbers are timm's list of them, in ascending order. The names are the ones that OpenAI curated for CLIP, as
    open_clip has them, but for n04008634, "projectile" (it is a second "missile" there), and n04355933, "sunglass" (a
    second "sunglasses").

    References
    ----------
    Radford et al., arXiv 2103.00020, for the names; Russakovsky et al., arXiv 1409.0575, for the classes.
    """
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data.imagenet_info import ImageNetInfo

    info: Any = ImageNetInfo()
    names = dict(zip(info.label_names(), IMAGENET_CLASSNAMES, strict=True))
    return MappingProxyType(names | _TOLD_APART)
