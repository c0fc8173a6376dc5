"""Entropic optimal transport, batched, and properties of its plans."""

from sotglp.transport.solver import marginal_error, sinkhorn

__all__ = ["marginal_error", "sinkhorn"]
