"""YAML files of the package, by name, and of the user, by path."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sotglp.errors import SotglpError
from sotglp.files.regular import read_regular


def packaged_names(folder: str) -> list[str]:
    """Return the names of the YAML files in a folder of the package, sorted, without suffix."""
    entries = (resources.files("sotglp") / folder).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def read_packaged(folder: str, kind: str, name: str) -> Any:
    """Read a YAML file by its name in a folder of the package, or by a path that ends in .yaml or .yml.

    Messages call it a ``kind``.
    """
    try:
        return parse_yaml(_text(folder, kind, name))
    except (yaml.YAMLError, OSError, ValueError) as error:
        if isinstance(error, SotglpError):
            raise
        raise SotglpError(f"the {kind} file {name} can't be read as YAML: {str(error).splitlines()[0]}") from error


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain values; every failure is a ``yaml.YAMLError``."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except Exception as error:  # invalid dates and numbers raise errors of their constructors
        raise yaml.YAMLError(f"it has a value that is not of its kind ({error})") from error


def _text(folder: str, kind: str, name: str) -> str:
    names = packaged_names(folder)
    if name in names:
        return (resources.files("sotglp") / folder / f"{name}.yaml").read_text(encoding="utf-8")
    if name.endswith((".yaml", ".yml")):
        return read_regular(Path(name)).decode("utf-8")
    raise SotglpError(f"there is no {kind} {name!r}: choose one of {', '.join(names)}, or give a YAML file")
