"""The notebook as a page, without outputs."""

from __future__ import annotations

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOK = "first_model.ipynb"
PAGE = "first_model.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page beside the notebook."""
    cells = json.loads((Path(config.docs_dir) / NOTEBOOK).read_text())["cells"]
    files.append(File.generated(config, PAGE, content=page(cells)))
    return files


def page(cells: list[dict[str, object]]) -> str:
    """Return the cells as Markdown, with a link to the notebook."""
    parts = []
    for cell in cells:
        source = "".join(cell["source"])  # type: ignore[arg-type]
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    link = f"[Download this page as a notebook]({NOTEBOOK}); CI runs it."
    return "\n\n".join([parts[0], link, *parts[1:]]) + "\n"
