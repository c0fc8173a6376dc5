"""Templates of pages that are one file without scripts, and load nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sotglp.console.table import counted
from sotglp.console.text import printable
from sotglp.scoring.intervals import Interval


def render_page(template: str, content: dict[str, Any]) -> bytes:
    """Render a template of this package in UTF-8; text is escaped, and equal arguments give equal bytes."""
    environment = Environment(
        loader=PackageLoader("sotglp.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    for function in (percent, between, number, counted, setting):
        environment.filters[function.__name__] = function
    return environment.get_template(template).render(content).encode("utf-8")


def percent(value: float) -> str:
    """Write a share in percent, without a line break before the sign."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def between(interval: Interval) -> str:
    """Write an interval of shares in percent."""
    return f"{100 * interval.low:.1f} to {percent(interval.high)}"


def number(value: float) -> str:
    """Write a number with three decimals."""
    return f"{value:.3f}"


def setting(value: Any) -> str:
    """Write the value of a setting."""
    if isinstance(value, list | tuple):
        return ", ".join(map(setting, value))
    return {None: "none", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)


def _printable(value: Any) -> Any:
    """Escape characters of file names that a page can't hold or that reverse the text after them."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
