"""SOT-GLP itself, with and without the learned projection."""

from __future__ import annotations

from sotglp.methods.method import Method
from sotglp.model import SOTGLP

METHODS = (
    Method("sot-glp", "SOT-GLP", "arXiv 2603.08347", SOTGLP),
    Method(
        "sot-glp-projection-free",
        "SOT-GLP, projection-free",
        "arXiv 2603.08347",
        SOTGLP,
        settings={"learn_projection": False},
    ),
)
