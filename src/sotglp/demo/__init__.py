"""The demo: methods compared on painted pictures of coloured shapes, offline."""
