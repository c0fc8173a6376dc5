"""A small world of coloured shapes, a CLIP trained on it, and the demonstration that uses both."""
