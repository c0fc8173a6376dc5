"""Versions of what is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

RESULTS_DEPEND_ON = ("sotglp", "torch", "torchvision", "open_clip_torch")


def installed_versions(names: tuple[str, ...] = RESULTS_DEPEND_ON) -> dict[str, str]:
    """Versions that a result depends on, of those that are installed: an exported model runs without torch.

    Parameters
    ----------
    names : tuple of str
        Names of distributions.
    """
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
