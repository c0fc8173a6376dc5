"""How maps of mass on patches look: in figures, in the report, and on the web page.

The picture stays visible in its colours below a black veil, which is the lighter the more mass a patch has; patches
that are used have a light outline within a dark one. Only brightness carries information, so that maps are legible in
grey and for the colour-blind. The web page repeats these numbers in ``web/page/map_drawing.js``.
"""

from __future__ import annotations

VEIL = 0.55
"""Opacity of the veil over patches without mass; over others, it falls linearly to 0 at the largest mass."""

USED = 1 / 12
"""Share of the largest mass from which on a patch is outlined."""

DARK = "#000000"
LIGHT = "#ffffff"
