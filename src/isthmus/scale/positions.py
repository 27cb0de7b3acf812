"""Where on the grid attribution lies over a corpus: logos and watermarks, which few captions name, show up there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from isthmus.frozen import Array

CORNERS = ("top left", "top right", "bottom left", "bottom right")
BEYOND = 1.5  # times what is usual, from which a corner is hinted at
FEWEST = 30  # pictures for a hint: the error of fewer is too rough
_SURE = 4.0  # standard errors
_CORNER = 7  # a corner is one cell of a grid of seven, two of fourteen, and so on


class Positions:
    """The mean of maps of one grid.

    Args:
        shape: `(rows, columns)`.

    Mass is the size of a score over the sum of the sizes of its map's scores. The maps of a picture are one mean first,
    so that every picture counts alike, however many texts it has: its maps lie alike, and are no evidence of their own.
    What is known of a picture is that its rows follow each other; one that comes again later counts again.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        """See the class."""
        self.shape, self.count, self.pictures = shape, 0, 0
        self._sums, self._squares = np.zeros((3, *shape)), np.zeros(4)  # scores, shares and mass; over whole pictures
        self._blocks = _blocks(shape)
        self._names: set[str] = set()  # of the first pictures, so that a few which come again and again are few
        self._name: str | None = None  # of the picture that may go on, the sums over its rows, and their number
        self._open, self._rows = np.zeros((3, *shape)), 0

    def add(self, maps: Array, pictures: Sequence[str]) -> Array:
        """Take in maps `(N, rows, columns)`, each of a picture; gives the most mass of one corner of each, `(N,)`."""
        maps = np.asarray(maps, dtype=np.float64)
        sizes = np.abs(maps)
        whole = sizes.sum((1, 2), keepdims=True)
        shares = np.divide(maps, whole, out=np.zeros_like(maps), where=whole > 0)
        mass = np.abs(shares)
        corners = self._corners_of(mass)
        self._add_pictures(np.stack([maps, shares, mass]), corners, pictures)
        return np.asarray(corners.max(1))

    def _add_pictures(self, parts: Array, corners: Array, pictures: Sequence[str]) -> None:
        """Take in `(3, N, rows, columns)` and corners `(N, 4)`; the last picture may go on in what comes next."""
        names = [self._name, *pictures]
        starts = [i for i in range(len(pictures)) if names[i] != names[i + 1]]
        self._name, self.count = names[-1], self.count + len(pictures)
        for i in starts:
            if len(self._names) == FEWEST:
                break
            self._names.add(pictures[i])
        first, last = (starts[0], starts[-1]) if starts else (len(pictures), len(pictures))
        self._open += parts[:, :first].sum(1)
        self._rows += first
        if not starts:
            return
        self.pictures, self._sums, self._squares = self._whole()
        self._open, self._rows = parts[:, last:].sum(1), len(pictures) - last
        if len(starts) > 1:
            rows = np.diff(starts)
            flat = parts[:, first:last].reshape(3, last - first, -1)
            self._sums += (np.repeat(1 / rows, rows) @ flat).reshape(self._sums.shape)
            means = np.add.reduceat(corners[first:last], np.array(starts[:-1]) - first, axis=0) / rows[:, None]
            self._squares += (means**2).sum(0)
            self.pictures += len(rows)

    def _corners_of(self, mass: Array) -> Array:
        """The mass of the corners `(N, 4)` of maps `(N, rows, columns)`."""
        return np.stack([mass[:, rows, columns].sum((1, 2)) for rows, columns in self._blocks[:4]], axis=1)

    def _whole(self) -> tuple[int, Array, Array]:
        """Number of pictures, and the sums over them: with the one that may go on."""
        if not self._rows:
            return self.pictures, self._sums, self._squares
        mean = self._open / self._rows
        return self.pictures + 1, self._sums + mean, self._squares + self._corners_of(mean[2:])[0] ** 2

    def told(self) -> dict[str, Any]:
        """What there is to tell, as JSON."""
        pictures, sums, squares = self._whole()
        score, share, mass = sums / max(pictures, 1)
        return {
            "rows": self.shape[0],
            "columns": self.shape[1],
            "count": self.count,
            "pictures": pictures if len(self._names) == FEWEST else len(self._names),
            "mean_score": score.tolist(),
            "mean_share": share.tolist(),
            "mean_mass": mass.tolist(),
            "corners": self._corners(mass, squares, pictures),
        }

    def _corners(self, mass: Array, squares: Array, pictures: int) -> dict[str, Any]:
        """The mass of each corner beside what is usual: that of the other corners, and of blocks along the border."""
        means = [float(mass[rows, columns].sum()) for rows, columns in self._blocks]
        corners, border = means[:4], means[4:]
        enough = len(self._names) == FEWEST and min(self.shape) > 2
        found = {}
        for i, name in enumerate(CORNERS):
            others = [value for k, value in enumerate(corners) if k != i]
            usual = max(float(np.median(others)), float(np.median(border)) if border else 0.0)
            spread = max(float(squares[i]) / max(pictures, 1) - corners[i] ** 2, 0.0)
            error = math.sqrt(spread / max(pictures - 1, 1))
            beyond = corners[i] > BEYOND * usual and corners[i] - usual > _SURE * error
            found[name] = {"mass": corners[i], "usual": usual, "beyond": bool(beyond and enough)}
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
