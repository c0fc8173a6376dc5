"""Docstrings as mkdocstrings reads them: Sphinx's roles become links, parameters told together one each.

Loaded by griffe, the reader of mkdocstrings.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`~?(?P<name>[\w.]+)`")
TOGETHER = re.compile(r"^(?P<names>\w+(?:,\s\w+)+)(?P<kind> : .*)?\n(?P<about>(?: {4}.*(?:\n|\Z))+)", re.MULTILINE)
"""Several parameters with one description. Griffe would give all of them the first one's type and default."""


class Docstrings(griffe.Extension):
    """Rewrite the docstring of whatever is met."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Names inside the package become links where there is something to link to; others stay code."""
        if obj.docstring is not None:
            obj.docstring.value = TOGETHER.sub(_one_each, ROLE.sub(_link, obj.docstring.value))


def _link(found: re.Match[str]) -> str:
    name = found["name"]
    if not name.startswith("sotglp."):
        return f"`{name}`"
    return f'<autoref optional identifier="{name}"><code>{name}</code></autoref>'


def _one_each(found: re.Match[str]) -> str:
    about = found["about"].rstrip("\n")
    return "".join(f"{name}{found['kind'] or ''}\n{about}\n" for name in re.split(r",\s", found["names"]))
