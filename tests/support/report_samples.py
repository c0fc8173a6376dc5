"""Models, images and pages that the tests of reports share."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image

from sotglp import SOTGLP
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.model_file.record import ModelRecord
from sotglp.report.page import About
from sotglp.scoring.predict import predict
from sotglp.settings import InferenceConfig, TrainConfig
from support.samples import COLOURS, coloured_image

SECTIONS = [
    "headline",
    "confusion",
    "worst",
    "mistakes",
    "calibration",
    "ood",
    "prompts",
    "training",
    "configuration",
    "reproduce",
]
"""Sections of the report on a model."""

READING = InferenceConfig(ood_method="mcm")


def pictures(per_class: int = 4, seed: int = 0) -> ImageSet:
    """Noise around three colours, in memory."""
    rng = np.random.default_rng(seed)
    pairs = [(coloured_image(rng, colour), name) for name, colour in COLOURS.items() for _ in range(per_class)]
    return ImageSet.from_items([image for image, _ in pairs], [name for _, name in pairs])


def others(n: int = 5, seed: int = 1) -> ImageSet:
    """Noise around no colour at all."""
    rng = np.random.default_rng(seed)
    return ImageSet.from_items([Image.fromarray(rng.integers(0, 255, (50, 40, 3), np.uint8)) for _ in range(n)])


def as_predicted(model: AdaptedModel, images: ImageSet, wrong: int = 0) -> ImageSet:
    """The images with the labels that the model gives them, but for the first few."""
    answers = predict(model, images, READING).probabilities.argmax(axis=1)
    n_classes = len(model.class_names)
    labels = [model.class_names[(answer + (place < wrong)) % n_classes] for place, answer in enumerate(answers)]
    return ImageSet.from_items(list(images.images), labels)


def record_of(model: AdaptedModel, **changes: Any) -> ModelRecord:
    """What the file of a model would tell."""
    backbone = {
        "name": "tiny",
        "pretrained": "embedded",
        "seed": None,
        "image_size": [32, 32],
        "fingerprint": "sha256:0123",
        "quick_gelu": False,
        "preprocess": None,
        "patch_attention": "value",
    }
    history = [
        {"epoch": epoch, "loss": 3.0 / epoch, "accuracy": 1 - 1 / epoch, "learning_rate": 0.1 / epoch}
        for epoch in (1, 2, 3)
    ]
    values = {"training": TrainConfig(epochs=3), "history": history, "versions": {"sotglp": "0.0.9"}, **changes}
    return ModelRecord(list(model.class_names), model.config, backbone=backbone, **values)


def about(model: AdaptedModel, **changes: Any) -> About:
    """What a page tells beside findings."""
    values = {
        "model_file": "m.safetensors",
        "record": record_of(model),
        "test": "photos/test",
        "ood": {},
        "command": "sotglp report m.safetensors photos/test --out r.html",
        "made_on": "2026-01-02",
    }
    return About(**{**values, **changes})


def named(model: SOTGLP, names: list[str]) -> SOTGLP:
    """A model of the same backbone with classes of these names."""
    return SOTGLP(model.backbone, names, n_local_prompts=2, top_k=5)


class Page(HTMLParser):
    """A page taken apart, which complains of tags that don't match.

    Attributes
    ----------
    tags : list of (str, dict)
        Every start tag and its attributes.
    text : str
        All text that is shown.
    """

    VOID = frozenset({"meta", "link", "br", "img", "image", "use", "path", "rect"})

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self._texts: list[str] = []
        self.sections: dict[str, str] = {}
        self._section = ""
        self.feed(page.decode("utf-8"))
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    def section(self, name: str) -> str:
        """Text of a section, by the id of its heading."""
        return " ".join(self.sections[name].split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = dict(attrs)["aria-labelledby"] or ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self._texts.append(data)
            self.sections[self._section] = self.sections.get(self._section, "") + data + " "


def check_alone(page: bytes, sections: list[str] = SECTIONS) -> Page:
    """A page that is whole, reads well by its structure and asks for nothing from anywhere."""
    taken = Page(page)
    assert not {"script", "iframe", "object", "form"} & {tag for tag, _ in taken.tags}
    identifiers = [attributes["id"] for _, attributes in taken.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in taken.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "action")]
        assert (attributes.get("src") or "data:").startswith("data:")
        if "href" in attributes:
            link = attributes["href"] or ""
            assert link.startswith("data:") or link.removeprefix("#") in identifiers
    linked = re.sub(rb'src="data:[^"]*"', b"", page)
    assert not re.search(rb"https?:|[\"'(]//|@import|url\((?!#)", linked)
    assert taken.of("html") == [{"lang": "en"}]
    assert [attributes["aria-labelledby"] for attributes in taken.of("section")] == sections
    headings = [int(tag[1]) for tag, _ in taken.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    assert len(taken.of("caption")) == len(taken.of("table"))
    assert all("scope" in attributes for attributes in taken.of("th"))
    assert len(taken.of("figcaption")) == len(taken.of("figure"))
    # Every drawing has a text alternative, its own or those of what it stands in.
    images = [attributes for _, attributes in taken.tags if attributes.get("role") == "img"]
    assert all(attributes.get("aria-label") for attributes in images)
    assert len(images) == len(taken.of("svg"))
    assert all(attributes.get("alt") for attributes in taken.of("img"))
    return taken
