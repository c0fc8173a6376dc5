"""Explanations: which patches and which words a prompt uses."""
