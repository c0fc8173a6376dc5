"""Prediction with an exported model: onnxruntime, numpy and Pillow are all that it needs.

Nothing here imports torch, open_clip, scikit-learn, scipy, pydantic, typer or rich, not even through other modules of
the library; tests/runtime/test_model.py sees to that.
"""

from sotglp.runtime.model import PortableModel, PortablePredictions

__all__ = ["PortableModel", "PortablePredictions"]
