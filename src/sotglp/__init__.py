"""Few-shot adaptation of CLIP-like models by local-global prompt learning with sparse optimal transport."""

from __future__ import annotations

import os
import sys
from importlib import import_module

if "torch" not in sys.modules:
    # Threads of OpenMP spin while they wait unless told otherwise before torch loads. On shared cores that makes the
    # many small operations of a fit several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Until the command line handles it, Ctrl-C ends in a traceback: `typing` would double that time.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from sotglp import ood as ood
    from sotglp import transport as transport
    from sotglp.backbone import Backbone as Backbone
    from sotglp.errors import SotglpError as SotglpError
    from sotglp.errors import SotglpWarning as SotglpWarning
    from sotglp.estimators.method import MethodClassifier as MethodClassifier
    from sotglp.estimators.sot_glp import SOTGLPClassifier as SOTGLPClassifier
    from sotglp.methods.sot_glp import SOTGLP as SOTGLP

__version__ = "0.1.0"

__all__ = [
    "SOTGLP",
    "Backbone",
    "MethodClassifier",
    "SOTGLPClassifier",
    "SotglpError",
    "SotglpWarning",
    "ood",
    "transport",
]

_MODULE_OF = {
    "SOTGLP": "methods.sot_glp",
    "Backbone": "backbone.backbone",
    "SOTGLPClassifier": "estimators.sot_glp",
    "MethodClassifier": "estimators.method",
    "SotglpError": "errors",
    "SotglpWarning": "errors",
}


def __getattr__(name: str) -> Any:
    # Importing torch and open_clip takes seconds, which `sotglp --help` must not wait for.
    if name in _MODULE_OF:
        return getattr(import_module(f"sotglp.{_MODULE_OF[name]}"), name)
    if name in __all__:
        return import_module(f"sotglp.{name}")
    raise AttributeError(f"module 'sotglp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
