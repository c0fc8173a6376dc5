"""The table of ``sotglp info --backbones``, read from a file of the package: PyTorch and open_clip are not loaded."""

from __future__ import annotations

import json
from importlib import resources
from importlib.metadata import version
from typing import Any

from sotglp.console.table import table_lines
from sotglp.errors import SotglpError

TABLE = "presets/backbone_table.json"
"""File of the package, which ``benchmarks/backbone_table.py`` writes."""

TIMM_NOTE = (
    "image towers of timm without text, such as timm:vit_small_patch14_dinov2, are timm:NAME, with the methods "
    "linear-probe, tip-adapter, gda, proker and pool"
)

SHOWN_TAGS = 2
"""Tags in a row of the whole table; a filtered table and the JSON list all."""


def backbone_rows(text: str | None) -> dict[str, Any]:
    """Return the rows whose name, family, tags or licences contain each word of ``text``, and open_clip's version.

    ``weights`` of a row are licences by tag, None where we know no source (docs/backbones.md). Raise a
    SotglpError if no row is left.
    """
    table = json.loads((resources.files("sotglp") / TABLE).read_text(encoding="utf-8"))
    words = (text or "").lower().split()
    rows = [row for row in table["backbones"] if all(word in _searched(row) for word in words)]
    if not rows:
        raise SotglpError(
            f"no backbone has {text!r} in its name, family, tags or licences: give another --filter, such as siglip "
            "or mobileclip; "
            f"{TIMM_NOTE}"
        )
    return {"open_clip": table["open_clip"], "backbones": rows}


def backbone_lines(found: dict[str, Any], *, all_tags: bool) -> list[str]:
    """Format the rows of :func:`backbone_rows` as a table, with a note if another open_clip is installed."""
    header = ("name", "family", "params", "pixels", "patches", "tags (licence)")
    lines = table_lines(header, [_cells(row, all_tags) for row in found["backbones"]], right=(2, 3, 4))
    if not all_tags:
        lines.append(TIMM_NOTE)
    installed = version("open_clip_torch")
    if installed != found["open_clip"]:
        lines.append(
            f"these are the architectures of open_clip {found['open_clip']}, and {installed} is installed: it may have "
            "others"
        )
    return lines


def _searched(row: dict[str, Any]) -> str:
    licences = {licence for licence in row["weights"].values() if licence}
    return "\n".join([row["name"], row["family"], *row["weights"], *licences]).lower()


def _cells(row: dict[str, Any], all_tags: bool) -> tuple[str, ...]:
    tags = [f"{tag} ({licence})" if licence else tag for tag, licence in row["weights"].items()]
    shown = tags if all_tags else tags[:SHOWN_TAGS]
    rest = [f"and {len(tags) - len(shown)} more"] if len(shown) < len(tags) else []
    numbers = (row["image_size"], row["patches"])
    return (
        row["name"],
        row["family"],
        f"{row['parameters'] / 1e6:,.1f} M" if row["parameters"] else "-",
        *("-" if number is None else str(number) for number in numbers),
        ("" if row["supported"] else "not supported; ") + (", ".join([*shown, *rest]) or "no weights"),
    )
