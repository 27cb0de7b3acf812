"""What the manifest of a run tells of its settings, and of what may differ from run to run."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path

from isthmus import __version__
from isthmus.encoders.dual import DualEncoder


def name(model: str | Path | DualEncoder) -> str:
    """The model as it is found again: its name, or its folder in full."""
    if isinstance(model, DualEncoder):
        return model.name
    folder = Path(model)
    return folder.resolve().as_posix() if folder.is_dir() else str(model)


def weights(model: str | Path | DualEncoder) -> str | None:
    """What tells that a model of the same name has other weights; None for a name, whose revision the rows tell."""
    if isinstance(model, DualEncoder):
        return model.revision
    if not Path(model).is_dir():
        return None
    files = sorted(path for path in Path(model).iterdir() if path.is_file())
    told = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


def listed(names: Sequence[str] | str) -> list[str]:
    """One name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def digest(prompts: Sequence[str] | str) -> str | None:
    """Prompts as the manifest keeps them: there may be thousands."""
    told = listed(prompts)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32] if told else None


def versions() -> dict[str, str]:
    """Of what the rows depend on."""
    import torch
    import transformers

    python = platform.python_version()
    return {
        "isthmus": __version__,
        "python": python,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
