"""The few-shot task of the demo: twenty classes that share parts, and out-of-distribution pictures."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sotglp.demo.painting import paint_textures
from sotglp.demo.world import (
    COLOURS,
    FILLS,
    KNOWN_FILLS,
    KNOWN_SHAPES,
    NO_PART,
    SHAPES,
    Parts,
    Pictures,
    draw_parts,
    paint,
    with_article,
)
from sotglp.images.image_set import ImageSet

N_CLASSES = 20
PARTS_OF_A_CLASS = 3

_POOL_SIZE = 12
_CLASS_SEED = 20


class Task(NamedTuple):
    """Classes of the few-shot task.

    Attributes
    ----------
    parts : ndarray
        Parts of each class, (N_CLASSES, PARTS_OF_A_CLASS, 3).
    names : tuple of str
        Class names: their parts by colour and shape. Fills can be learned only from shots.
    pool : ndarray
        All parts, (_POOL_SIZE, 3); each is in five classes, so that no single part identifies a class.
    """

    parts: Parts
    names: tuple[str, ...]
    pool: Parts


def few_shot_task() -> Task:
    """Return the task of the demo, the same at each call."""
    rng = np.random.default_rng(_CLASS_SEED)
    pairs = rng.permutation(KNOWN_SHAPES * len(COLOURS))[:_POOL_SIZE]
    pool = np.stack([pairs // len(COLOURS), pairs % len(COLOURS), rng.integers(KNOWN_FILLS, size=_POOL_SIZE)], axis=-1)
    triples = _balanced_triples(rng)
    parts = pool[np.array(triples)]
    names = tuple(_name(one) for one in parts)
    return Task(parts, names, pool)


def _balanced_triples(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Draw classes such that all parts are equally frequent, and no two classes begin with the same two parts."""
    each = N_CLASSES * PARTS_OF_A_CLASS // _POOL_SIZE
    while True:
        left = np.full(_POOL_SIZE, each)
        triples: list[tuple[int, int, int]] = []
        taken: set[frozenset[int]] = set()  # all parts, and the first two parts, of each class
        for _ in range(N_CLASSES):
            # The least used parts first, ties at random.
            order = np.lexsort([rng.random(_POOL_SIZE), -left])
            first, second, third = rng.permutation(order[:PARTS_OF_A_CLASS]).tolist()
            triple = (first, second, third)
            its_parts = {frozenset(triple), frozenset(triple[:2])}
            if its_parts & taken or left[list(triple)].min() < 1:
                break
            triples.append(triple)
            taken |= its_parts
            left[list(triple)] -= 1
        if len(triples) == N_CLASSES:
            return sorted(triples)


def _name(parts: Parts) -> str:
    phrases = [f"{COLOURS[colour]} {SHAPES[shape]}" for shape, colour, _ in parts.tolist()]
    return " and ".join([phrases[0], *map(with_article, phrases[1:])])


def contains_class(parts: Parts) -> NDArray[np.bool_]:
    """Return whether a picture has all parts of some class by shape and colour, whatever their fills, (n,)."""
    wanted = few_shot_task().parts[:, :, :2]  # (C, 3, 2)
    alike = (parts[:, None, None, :, :2] == wanted[None, :, :, None]).all(axis=-1)  # (n, C, 3, S)
    result: NDArray[np.bool_] = alike.any(axis=-1).all(axis=-1).any(axis=-1)
    return result


def draw_class_pictures(per_class: int, seed: int) -> tuple[Pictures, NDArray[np.int64]]:
    """Paint pictures of every class, with their class indices (n,).

    Half of the pictures have an additional part of a shape and colour that no class has.
    """
    task = few_shot_task()
    rng = np.random.default_rng([seed, 0])
    targets = np.tile(np.arange(N_CLASSES), per_class)
    return _paint_with_distractors(task.parts[targets], rng), targets


def draw_near(n_pictures: int, seed: int) -> Pictures:
    """Paint near-OOD pictures: combinations of three parts of the pool that are no class."""
    task = few_shot_task()
    rng = np.random.default_rng([seed, 1])
    classes = {frozenset(map(tuple, one)) for one in task.parts.tolist()}
    others = [three for three in combinations(task.pool.tolist(), 3) if frozenset(map(tuple, three)) not in classes]
    chosen = np.array(others)[rng.integers(len(others), size=n_pictures)]
    return _paint_with_distractors(chosen, rng)


def draw_mid(n_pictures: int, seed: int) -> Pictures:
    """Paint mid-OOD pictures: three parts of shapes or fills that pretraining did not include."""
    rng = np.random.default_rng([seed, 2])
    parts = draw_parts(n_pictures, rng, fewest=3, most=3)
    unseen_shape = rng.random((n_pictures, 1)) < 0.5
    shapes = rng.integers(KNOWN_SHAPES, len(SHAPES), parts.shape[:2])
    fills = rng.integers(KNOWN_FILLS, len(FILLS), parts.shape[:2])
    here = parts[:, :, 0] != NO_PART
    parts[:, :, 0] = np.where(here & unseen_shape, shapes, parts[:, :, 0])
    parts[:, :, 2] = np.where(here & ~unseen_shape, fills, parts[:, :, 2])
    return paint(parts, rng)


def draw_far(n_pictures: int, seed: int) -> NDArray[np.uint8]:
    """Paint far-OOD pictures: textures without parts."""
    return paint_textures(n_pictures, np.random.default_rng([seed, 3]))


def image_set(images: NDArray[np.uint8], targets: NDArray[np.int64] | None = None) -> ImageSet:
    """Wrap painted pictures as an image set, with class names as labels if there are targets."""
    names = few_shot_task().names
    labels = None if targets is None else [names[i] for i in targets]
    return ImageSet.from_items([Image.fromarray(image) for image in images], labels)


def _paint_with_distractors(parts: Parts, rng: np.random.Generator) -> Pictures:
    """Paint the parts in random order, in half of the pictures with a distractor among them."""
    extra = _distractors(len(parts), rng)
    extra[rng.random(len(parts)) < 0.5] = NO_PART
    together = np.concatenate([parts, extra[:, None]], axis=1)
    order = rng.random(together.shape[:2]).argsort(axis=1)
    return paint(np.take_along_axis(together, order[:, :, None], axis=1), rng)


def _distractors(n_pictures: int, rng: np.random.Generator) -> Parts:
    """Parts of shapes and colours that are not in the pool, (n, 3)."""
    pool = {tuple(pair) for pair in few_shot_task().pool[:, :2].tolist()}
    pairs = [(s, c) for s in range(KNOWN_SHAPES) for c in range(len(COLOURS)) if (s, c) not in pool]
    chosen = np.array(pairs)[rng.integers(len(pairs), size=n_pictures)]
    return np.concatenate([chosen, rng.integers(KNOWN_FILLS, size=(n_pictures, 1))], axis=1)
