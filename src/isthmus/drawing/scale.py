"""One diverging colour scale, centred on zero: red speaks for the match, blue against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.explanation import Array, Explanation

MAP = "RdBu_r"  # ColorBrewer's red-blue, told apart by every kind of colour vision
FOR, AGAINST = (178, 24, 43), (33, 102, 172)
_OPACITY = 0.85
_GAMMA = 0.8  # faint scores stay visible on a busy picture


@dataclass(frozen=True)
class Scale:
    """Colours for values from `-limit` to `limit`; `on_picture` where they are laid over one."""

    limit: float
    unit: str
    on_picture: bool = False

    def ramp(self, count: int = 256) -> list[str]:
        """The bar's colours from `-limit` to `limit`, hexadecimal: as the panels show them on white."""
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        values = np.linspace(-1, 1, count)
        if not self.on_picture:
            return [str(to_hex(colour)) for colour in colormaps[MAP]((values + 1) / 2)]
        colours, alpha = layered(values)
        return [str(to_hex(colour)) for colour in (colours * alpha[:, None] + 255 * (1 - alpha[:, None])) / 255]

    def normalised(self, values: Array | float) -> Array:
        """Values over the limit, in [-1, 1]."""
        return np.asarray(np.clip(np.asarray(values, dtype=np.float64) / self.limit, -1, 1))

    def colour(self, value: float) -> str:
        """Hexadecimal colour of a value; white at zero."""
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        return str(to_hex(colormaps[MAP](0.5 + 0.5 * float(self.normalised(value)))))


def layered(values: Array) -> tuple[Array, Array]:
    """Colours `(..., 3)` in [0, 255] and opacities in [0, 1] of a map's values in [-1, 1]."""
    return np.where((values >= 0)[..., None], FOR, AGAINST), _OPACITY * np.abs(values) ** _GAMMA


def ink(colour: str) -> str:
    """Black or white, whichever has more contrast with a hexadecimal colour (WCAG 2 relative luminance)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def region_scale(explanations: Sequence[Explanation]) -> Scale:
    """The scale that all picture panels of a figure share."""
    values = [one.image.scores for one in explanations if one.image is not None]
    return Scale(limit_of(v for array in values for v in array.ravel().tolist()), "score per patch", on_picture=True)


def word_scale(explanations: Sequence[Explanation]) -> Scale:
    """The scale that all texts of a figure share."""
    words = [word.score for one in explanations if one.text is not None for word in one.text.words]
    return Scale(limit_of(words), "score per word")


def limit_of(values: Iterable[float]) -> float:
    """The largest size of some values, 1 where there is none above zero."""
    finite = [abs(value) for value in values if np.isfinite(value)]
    return max(finite, default=0.0) or 1.0
