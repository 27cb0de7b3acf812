"""Where on the grid attribution lies over a corpus: logos and watermarks, which few captions name, show up there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from isthmus.frozen import Array

CORNERS = ("top left", "top right", "bottom left", "bottom right")
BEYOND = 1.5  # times what is usual, from which a corner is hinted at
_SURE = 4.0  # standard errors
_CORNER = 7  # a corner is one cell of a grid of seven, two of fourteen, and so on


class Positions:
    """The mean of maps of one grid.

    Args:
        shape: `(rows, columns)`.

    Mass is the size of a score over the sum of the sizes of its map's scores, so that every picture counts alike.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        """See the class."""
        self.shape, self.count = shape, 0
        self._raw, self._share, self._mass = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._blocks = _blocks(shape)
        self._squares = np.zeros(4)

    def add(self, maps: Array) -> Array:
        """Take in maps `(N, rows, columns)`; gives the most that one corner has of the mass of each, `(N,)`."""
        maps = np.asarray(maps, dtype=np.float64)
        sizes = np.abs(maps)
        whole = sizes.sum((1, 2), keepdims=True)
        shares = np.divide(maps, whole, out=np.zeros_like(maps), where=whole > 0)
        mass = np.abs(shares)
        self.count += len(maps)
        self._raw += maps.sum(0)
        self._share += shares.sum(0)
        self._mass += mass.sum(0)
        corners = np.stack([mass[:, rows, columns].sum((1, 2)) for rows, columns in self._blocks[:4]], axis=1)
        self._squares += (corners**2).sum(0)
        return np.asarray(corners.max(1))

    def told(self) -> dict[str, Any]:
        """What there is to tell, as JSON."""
        count = max(self.count, 1)
        mass = self._mass / count
        return {
            "rows": self.shape[0],
            "columns": self.shape[1],
            "count": self.count,
            "mean_score": (self._raw / count).tolist(),
            "mean_share": (self._share / count).tolist(),
            "mean_mass": mass.tolist(),
            "corners": self._corners(mass, count),
        }

    def _corners(self, mass: Array, count: int) -> dict[str, Any]:
        """The mass of each corner beside what is usual: that of the other corners, and of blocks along the border."""
        means = [float(mass[rows, columns].sum()) for rows, columns in self._blocks]
        corners, border = means[:4], means[4:]
        found = {}
        for i, name in enumerate(CORNERS):
            others = [value for k, value in enumerate(corners) if k != i]
            usual = max(float(np.median(others)), float(np.median(border)) if border else 0.0)
            error = math.sqrt(max(float(self._squares[i]) / count - corners[i] ** 2, 0.0) / count)
            beyond = corners[i] > BEYOND * usual and corners[i] - usual > _SURE * error
            found[name] = {"mass": corners[i], "usual": usual, "beyond": bool(beyond and min(self.shape) > 2)}
        rows, columns = self._blocks[0]
        even = (rows.stop - rows.start) * (columns.stop - columns.start) / (self.shape[0] * self.shape[1])
        return {"cells": [rows.stop - rows.start, columns.stop - columns.start], "even": even, **found}


def _blocks(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """The four corners, and the blocks of the same size side by side along the border between them."""
    height, width = (max(1, round(n / _CORNER)) for n in shape)
    ends = [
        (slice(0, height), slice(shape[0] - height, shape[0])),
        (slice(0, width), slice(shape[1] - width, shape[1])),
    ]
    found = [(rows, columns) for rows in ends[0] for columns in ends[1]]
    for rows in ends[0]:
        found += [(rows, slice(c, c + width)) for c in range(width, shape[1] - 2 * width + 1, width)]
    for columns in ends[1]:
        found += [(slice(r, r + height), columns) for r in range(height, shape[0] - 2 * height + 1, height)]
    return found
