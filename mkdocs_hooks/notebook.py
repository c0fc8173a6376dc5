"""The notebook as a page: its words and code, without outputs, since none are stored."""

from __future__ import annotations

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOK = "first_model.ipynb"
PAGE = "first_model.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page beside the notebook, which stays to be downloaded."""
    cells = json.loads((Path(config.docs_dir) / NOTEBOOK).read_text())["cells"]
    files.append(File.generated(config, PAGE, content=page(cells)))
    return files


def page(cells: list[dict[str, object]]) -> str:
    """Markdown of the cells, with a link to the file under the title."""
    parts = []
    for cell in cells:
        source = "".join(cell["source"])  # type: ignore[arg-type]
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    link = f"[Download this page as a notebook]({NOTEBOOK}); a test runs it from top to bottom."
    return "\n\n".join([parts[0], link, *parts[1:]]) + "\n"
