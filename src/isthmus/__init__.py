"""Isthmus: see what passes between an image and a text.

    >>> import isthmus
    >>> model = isthmus.load("mini")
    >>> explanation = isthmus.explain(model, "examples/dog.jpg", "a dog is tied to a fire hydrant")

The names below are imported when they are first used, so that `import isthmus` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "load": "explainer",
    "map": "scale.mapping",
    "explain": "explainer",
    "compare": "comparison",
    "Comparison": "comparison",
    "Explanation": "explanation",
    "ImageAttribution": "explanation",
    "TextAttribution": "explanation",
    "Pair": "targets",
    "Contrast": "targets",
    "Direction": "targets",
    "from_towers": "encoders.own",
    "image_processor": "encoders.own",
    "DualEncoder": "encoders.dual",
    "PreparedImage": "encoders.dual",
    "Tower": "encoders.tower",
    "IsthmusError": "errors",
    "METHODS": "methods",
    "JointAttribution": "joint",
    "PromptFreeMaps": "prompts",
    "prompt_free": "prompts",
    "neighbors": "exemplars",
    "describe_direction": "directions",
    "decompose": "heads",
    "name_heads": "heads",
}

__all__ = [
    "METHODS",
    "Comparison",
    "Contrast",
    "Direction",
    "DualEncoder",
    "Explanation",
    "ImageAttribution",
    "IsthmusError",
    "JointAttribution",
    "Pair",
    "PreparedImage",
    "PromptFreeMaps",
    "TextAttribution",
    "Tower",
    "__version__",
    "compare",
    "decompose",
    "describe_direction",
    "explain",
    "from_towers",
    "image_processor",
    "load",
    "map",
    "name_heads",
    "neighbors",
    "prompt_free",
]

if TYPE_CHECKING:
    from isthmus.comparison import Comparison, compare
    from isthmus.directions import describe_direction
    from isthmus.encoders.dual import DualEncoder, PreparedImage
    from isthmus.encoders.own import from_towers, image_processor
    from isthmus.encoders.tower import Tower
    from isthmus.errors import IsthmusError
    from isthmus.exemplars import neighbors
    from isthmus.explainer import explain, load
    from isthmus.explanation import Explanation, ImageAttribution, TextAttribution
    from isthmus.heads import decompose, name_heads
    from isthmus.joint import JointAttribution
    from isthmus.methods import METHODS
    from isthmus.prompts import PromptFreeMaps, prompt_free
    from isthmus.scale.mapping import map
    from isthmus.targets import Contrast, Direction, Pair


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'isthmus' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"isthmus.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
