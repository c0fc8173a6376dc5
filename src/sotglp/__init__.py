"""Few-shot adaptation of CLIP-like models by local-global prompt learning with sparse optimal transport."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sotglp import ood as ood
    from sotglp import transport as transport
    from sotglp.backbone import Backbone as Backbone
    from sotglp.errors import SotglpError as SotglpError
    from sotglp.errors import SotglpWarning as SotglpWarning
    from sotglp.estimator import SOTGLPClassifier as SOTGLPClassifier
    from sotglp.method_classifier import MethodClassifier as MethodClassifier
    from sotglp.model import SOTGLP as SOTGLP

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

_ROOM_OF = {
    "SOTGLP": "model",
    "Backbone": "backbone",
    "SOTGLPClassifier": "estimator",
    "MethodClassifier": "method_classifier",
    "SotglpError": "errors",
    "SotglpWarning": "errors",
}


def __getattr__(name: str) -> Any:
    # torch and open_clip take seconds to import: `sotglp --help` must not wait for them.
    if name in _ROOM_OF:
        return getattr(import_module(f"sotglp.{_ROOM_OF[name]}"), name)
    if name in __all__:
        return import_module(f"sotglp.{name}")
    raise AttributeError(f"module 'sotglp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
