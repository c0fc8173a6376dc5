"""Entries of a feature cache."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sotglp.features.cache import FeatureStore
from sotglp.features.prune import prune

ABOUT = {"backbone": "ViT-B-16", "fingerprint": "sha256:0", "image_size": [224, 224], "precision": "fp32"}
DAY = 86400
LARGE = {"d": 16, "p": 1000, "w": 1000}


def features(seed: int, d: int = 4, p: int = 3, w: int = 5) -> tuple[Tensor, Tensor]:
    numbers = np.random.default_rng(seed)
    return (
        torch.from_numpy(numbers.normal(size=d).astype(np.float32)),
        torch.from_numpy(numbers.normal(size=(p, w)).astype(np.float32)),
    )


def key_of(number: int) -> str:
    return FeatureStore.key(f"{number}", None)


def fill(store: FeatureStore, numbers: range, **sizes: int) -> None:
    for number in numbers:
        store.write(key_of(number), *features(number, **sizes))


def entry_file(store: FeatureStore, key: str) -> Path:
    return store.path / key[:2] / f"{key}.safetensors"


def age(store: FeatureStore, number: int, days: float) -> None:
    used = time.time() - days * DAY
    os.utime(entry_file(store, key_of(number)), (used, used))


def write_and_prune(root: Path, start: Barrier, n_rounds: int, prunes: bool) -> None:
    store = FeatureStore(root, ABOUT)
    start.wait(60)
    for _ in range(n_rounds):
        fill(store, range(20))
        if prunes:
            prune(root, everything=True)


def write_without_end(root: Path, ready: Connection) -> None:
    store = FeatureStore(root, ABOUT)
    first, second = features(0, **LARGE), features(1, **LARGE)
    ready.send(None)
    while True:
        store.write(key_of(0), *first)
        store.write(key_of(1), *second)
