"""PLOT: N contexts shared by all classes, matched with all patches of the image by transport."""

from __future__ import annotations

from sotglp.methods.method import Method
from sotglp.methods.sot_glp import SOTGLP

METHODS = (
    Method(
        "plot",
        "PLOT",
        "arXiv 2210.01253",
        SOTGLP,
        settings={
            "branches": "local",
            "local_contexts": "shared",
            "n_local_prompts": 4,
            "top_k": None,
            "local_factor": "1",
            "learn_projection": False,
        },
        training={"weight_decay": 0.0005},
    ),
)
