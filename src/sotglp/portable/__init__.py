"""Prediction with an exported model: onnxruntime, numpy and Pillow are all that it needs.

Nothing here imports torch, open_clip, scikit-learn, scipy, pydantic, typer or rich, not even through other modules of
the library; tests/test_portable.py sees to that.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sotglp.portable.model import PortableModel as PortableModel
    from sotglp.portable.model import PortablePredictions as PortablePredictions

__all__ = ["PortableModel", "PortablePredictions"]


def __getattr__(name: str) -> Any:
    # Every command writes its results from here, and `--help` must not wait for numpy.
    if name in __all__:
        return getattr(import_module("sotglp.portable.model"), name)
    raise AttributeError(f"module 'sotglp.portable' has no attribute {name!r}")
