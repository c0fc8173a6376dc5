"""Prediction with an exported model, which needs onnxruntime, numpy and Pillow only.

No module here imports another third-party package, not even indirectly; tests/runtime/test_model.py checks it.
"""

from sotglp.runtime.model import PortableModel, PortablePredictions

__all__ = ["PortableModel", "PortablePredictions"]
