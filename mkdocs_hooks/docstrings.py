"""Griffe extension: Sphinx roles become links; parameters documented together are split."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`~?(?P<name>[\w.]+)`")
TOGETHER = re.compile(r"^(?P<names>\w+(?:,\s\w+)+)(?P<kind> : .*)?\n(?P<about>(?: {4}.*(?:\n|\Z))+)", re.MULTILINE)
"""Several parameters with one description; griffe gives all of them the type and default of the first."""


class Docstrings(griffe.Extension):
    """Rewrites docstrings."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Link names of the package that are documented; leave others as code."""
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
