"""Libraries that only some features need: imported when they are used, with the command that installs them."""

from __future__ import annotations

import importlib
from typing import Any

from isthmus.errors import OptionError

_EXTRAS = {
    "pyarrow": "evaluate",
    "scipy": "evaluate",
    "skimage": "evaluate",
    "torchmetrics": "evaluate",
    "datasets": "datasets",
    "webdataset": "datasets",
    "open_clip": "open_clip",
    "gradio": "app",
    "fsspec": "scale",
    "ray": "ray",
}


def needed(module: str) -> Any:
    """A module of an extra. Raises OptionError, naming what to install, where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        root = module.split(".")[0]
        raise OptionError(
            f"This needs {root}, which is not installed: pip install 'isthmus[{_EXTRAS.get(root, 'evaluate')}]'."
        ) from error
