"""Formulas as MathML, which browsers render without scripts or fonts."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((?P<latex>.*?)\\\)</span>', re.DOTALL)
DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(?P<latex>.*?)\\\]\s*</div>', re.DOTALL)
"""Markup of pymdownx.arithmatex in its generic form."""


def on_page_content(content: str, **_: Any) -> str:
    """Replace formulas that arithmatex marked."""
    content = INLINE.sub(lambda found: convert(html.unescape(found["latex"])), content)
    return DISPLAY.sub(
        lambda found: f'<div class="formula">{convert(html.unescape(found["latex"]).strip(), display="block")}</div>',
        content,
    )
