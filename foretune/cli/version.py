"""The version of this package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """As installed; `unknown` when it runs from a source tree that was never installed."""
    try:
        return version("foretune")
    except PackageNotFoundError:
        return "unknown"
