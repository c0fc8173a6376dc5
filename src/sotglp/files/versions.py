"""Versions of installed packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

RESULTS_DEPEND_ON = ("sotglp", "torch", "torchvision", "open_clip_torch", "timm")


def installed_versions(names: tuple[str, ...] = RESULTS_DEPEND_ON) -> dict[str, str]:
    """Return the versions of those distributions that are installed: exported models run without torch."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
