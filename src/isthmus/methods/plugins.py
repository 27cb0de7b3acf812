"""Methods of other packages, which name the module that registers them under the entry point "isthmus.methods"."""

from __future__ import annotations

import warnings
from importlib.metadata import entry_points

GROUP = "isthmus.methods"


def load_plugins() -> None:
    """Import the modules of all installed packages that register methods; one that fails is told of and left out."""
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:  # a stranger's module may raise anything
            warnings.warn(
                f"The plug-in {point.name!r} ({point.value}) is left out: {type(error).__name__}: {error}. Update or "
                "uninstall the package that brings it.",
                stacklevel=2,
            )
