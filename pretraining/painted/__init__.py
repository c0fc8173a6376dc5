"""Pretraining of the embedded model `tiny`, a small CLIP, on painted pictures."""
