"""The joint map: what each word together with each region contributes to the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isthmus.frozen import Array, Comparable, freeze, seal


@dataclass(frozen=True, eq=False)
class JointAttribution(Comparable):
    """Signed shares of the cosine of a picture and a text, by pairs of positions of the two sides.

    The cosine is `constant + sum of text_alone + sum of image_alone + sum of matrix`, up to `delta`.

    Attributes:
        matrix: `(positions of the text, positions of the image)` what a pair of positions brings together.
        text_alone: what each position of the text brings whatever the picture shows.
        image_alone: what each position of the picture brings whatever the text says.
        constant: what is left when both sides are closed.
        similarity: the cosine that is explained.
        grid: `(rows, columns)` of the patches.
        patches: the position of each patch, row by row.
        tokens: the position of each token of the text, as `TextAttribution.tokens`.
        words: for each word of the text the indices of its tokens.
        options: the method's options as resolved.
        notes: what a reader should know.
    """

    matrix: Array
    text_alone: Array
    image_alone: Array
    constant: float
    similarity: float
    grid: tuple[int, int]
    patches: tuple[int, ...]
    tokens: tuple[int, ...]
    words: tuple[tuple[int, ...], ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Make the arrays and options read-only."""
        freeze(self, "options")
        seal(self, "matrix", "text_alone", "image_alone")

    @property
    def delta(self) -> float:
        """What the parts sum to, less the cosine; signed, in units of the cosine."""
        parts = (self.matrix, self.text_alone, self.image_alone)
        return self.constant + sum(float(part.astype("float64").sum()) for part in parts) - self.similarity

    @property
    def scores(self) -> Array:
        """`(words, rows, columns)` what each word brings with each patch."""
        by_token = self.matrix[list(self.tokens)][:, list(self.patches)]
        return np.stack([by_token[list(word)].sum(0).reshape(self.grid) for word in self.words])

    def regions(self, word: int) -> Array:
        """`(rows, columns)` which regions speak for or against the match together with word number `word`."""
        return np.asarray(self.scores[word])

    def of_region(self, row: int, column: int) -> Array:
        """`(words,)` which words speak for or against the match together with the patch at `row`, `column`."""
        return np.asarray(self.scores[:, row, column])
