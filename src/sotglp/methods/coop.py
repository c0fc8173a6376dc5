"""CoOp: one context shared by all classes, compared with the global feature."""

from __future__ import annotations

from sotglp.methods.method import Method
from sotglp.methods.sot_glp import SOTGLP

METHODS = (
    Method(
        "coop",
        "CoOp",
        "arXiv 2109.01134",
        SOTGLP,
        settings={"branches": "global", "n_global_prompts": 1},
        training={"prompt_dropout": 0.0, "weight_decay": 0.0005},
    ),
)
