"""Nouns of WordNet 3.0, and the texts that describe ImageNet's classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

from sotglp.errors import SotglpError

PHYSICAL_ENTITY = "00001930"
"""Synset of everything that can be photographed."""

MOST_CLASSES = 350
"""Hypernyms of more classes than this are too general to describe an image."""


@dataclass(frozen=True)
class WordNet:
    """Noun synsets, by the offset in ``data.noun``.

    Attributes
    ----------
    lemmas : dict of str to list of str
        Names of a synset, the most frequent first.
    glosses : dict of str to str
        Definition, without examples.
    hypernyms : dict of str to list of str
        Synsets that are one step more general.
    """

    lemmas: dict[str, list[str]]
    glosses: dict[str, str]
    hypernyms: dict[str, list[str]]

    @classmethod
    def read(cls, folder: Path) -> WordNet:
        """Read ``data.noun``, a file of Debian's package wordnet-base.

        Raises
        ------
        SotglpError
            If the file is missing.
        """
        path = folder / "data.noun"
        if not path.is_file():
            raise SotglpError(f"{path} is missing: install Debian's package wordnet-base, or give --wordnet FOLDER")
        lemmas, glosses, hypernyms = {}, {}, {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):  # the licence
                continue
            fields, gloss = line.split("|", 1)
            offset, _, _, n_lemmas, *rest = fields.split()
            end = 2 * int(n_lemmas, 16)
            lemmas[offset] = [lemma.replace("_", " ") for lemma in rest[:end:2]]
            glosses[offset] = gloss.split(";")[0].strip()
            pointers = rest[end + 1 :]
            hypernyms[offset] = [
                target for symbol, target in zip(pointers[::4], pointers[1::4], strict=False) if symbol in ("@", "@i")
            ]
        return cls(lemmas, glosses, hypernyms)

    def ancestors(self, offset: str) -> set[str]:
        """Return all synsets that are more general than one."""
        found: set[str] = set()
        queue = [offset]
        while queue:
            new = [one for one in self.hypernyms[queue.pop()] if one not in found]
            found.update(new)
            queue.extend(new)
        return found

    def physical(self) -> list[str]:
        """Return the synsets of things that can be photographed, in the file's order."""
        return [offset for offset in self.lemmas if PHYSICAL_ENTITY in {offset, *self.ancestors(offset)}]


@dataclass(frozen=True)
class Anchor:
    """A text that describes one or more classes of ImageNet."""

    text: str
    kind: Literal["name", "gloss", "hypernym"]
    classes: tuple[int, ...]


def class_synsets() -> list[str]:
    """Return the synsets of ImageNet's 1,000 classes, in the classifier's order."""
    path = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt"
    return [line.removeprefix("n") for line in path.read_text().split()]


def imagenet_anchors(wordnet: WordNet) -> list[Anchor]:
    """Return names and glosses of the 1,000 classes, and their hypernyms."""
    anchors: list[Anchor] = []
    below: dict[str, list[int]] = {}
    for index, synset in enumerate(class_synsets()):
        names = wordnet.lemmas[synset]
        anchors.extend(Anchor(name, "name", (index,)) for name in sorted({*names, IMAGENET_CLASSNAMES[index]}))
        anchors.append(Anchor(f"{names[0]}, {wordnet.glosses[synset]}", "gloss", (index,)))
        for ancestor in wordnet.ancestors(synset):
            below.setdefault(ancestor, []).append(index)
    for synset in sorted(below):
        if len(below[synset]) <= MOST_CLASSES:
            anchors.extend(Anchor(name, "hypernym", tuple(below[synset])) for name in wordnet.lemmas[synset])
    return anchors
