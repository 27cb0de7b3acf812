"""Sample: what every reader yields, `(id, image, texts, truth)`; and truth, where the named things are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw

from isthmus.errors import InputError
from isthmus.frozen import Array


class Shape(Protocol):
    """Where a thing is on a picture."""

    def mask(self, size: tuple[int, int]) -> Array:
        """`(height, width)` bool of the upright picture of `(width, height)` pixels."""


@dataclass(frozen=True)
class BoxShape:
    """A rectangle in the picture's pixels; right and bottom are the first outside it."""

    left: float
    top: float
    right: float
    bottom: float

    def mask(self, size: tuple[int, int]) -> Array:
        """The pixels whose centres lie inside; see `Shape`."""
        x, y = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
        return np.outer((y >= self.top) & (y < self.bottom), (x >= self.left) & (x < self.right))


@dataclass(frozen=True)
class PolygonShape:
    """One polygon or more, each `(x0, y0, x1, y1, ...)` in the picture's pixels."""

    polygons: tuple[tuple[float, ...], ...]

    def mask(self, size: tuple[int, int]) -> Array:
        """The pixels inside one of them; see `Shape`."""
        drawn = Image.new("1", size)
        for points in self.polygons:
            ImageDraw.Draw(drawn).polygon(list(points), fill=1)
        return np.asarray(drawn, dtype=bool)


@dataclass(frozen=True)
class SegmentShape:
    """A segment of a panoptic PNG, by its id `R + 256 G + 65536 B` (Kirillov et al., CVPR 2019)."""

    png: Path
    segment: int

    def mask(self, size: tuple[int, int]) -> Array:
        """The pixels with this id; see `Shape`. Raises InputError where the PNG cannot be read or does not fit."""
        try:
            with Image.open(self.png) as image:
                pixels = np.asarray(image.convert("RGB"), dtype=np.int64)
        except (OSError, ValueError) as error:
            raise InputError(f"The segments {str(self.png)!r} cannot be read: copy the file again.") from error
        if pixels.shape[:2] != (size[1], size[0]):
            raise InputError(f"The segments {str(self.png)!r} have another size than their picture.")
        return np.asarray(pixels @ np.array([1, 256, 65536]) == self.segment)


@dataclass(frozen=True, eq=False)
class MaskShape:
    """A mask `(height, width)` that is there already; it is resized to the picture where it is smaller."""

    array: Array

    def mask(self, size: tuple[int, int]) -> Array:
        """See `Shape`."""
        found = np.asarray(self.array) > 0
        if found.shape != (size[1], size[0]):
            found = np.asarray(Image.fromarray(found).resize(size, Image.Resampling.NEAREST), dtype=bool)
        return found


@dataclass(frozen=True)
class Region:
    """A thing on the picture, by its name, such as "dog"."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Truth:
    """What is known of a picture beside its texts.

    Attributes:
        regions: where named things are; several may bear one name.
        label: the class of the whole picture, None where it has none.
    """

    regions: tuple[Region, ...] = ()
    label: str | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture with what is said of it.

    Attributes:
        id: unique in its dataset, stable over runs and machines.
        image: what `isthmus.explain` takes: a path, or a PIL image where the dataset holds the pixels.
        texts: captions, at least one.
        truth: what is known beside them.
        picture: the same for all samples of one picture, as of a table with a row for each caption, and another for
            every other picture of the dataset; the id where it is not given. One picture is one file, by its path
            relative to the dataset with `.` and `..` resolved, but not links; or one URL; or, where the dataset holds
            the pictures themselves, the same encoded bytes, by a digest. Two copies of a file are two pictures.
    """

    id: str
    image: Any
    texts: tuple[str, ...]
    truth: Truth = field(default_factory=Truth)
    picture: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        """Fill in what was not given."""
        if not self.picture:
            object.__setattr__(self, "picture", self.id)  # the class is frozen


def named_regions(regions: Sequence[Region]) -> dict[str, tuple[Region, ...]]:
    """Regions by their name, in the order in which the names come first."""
    found: dict[str, tuple[Region, ...]] = {}
    for region in regions:
        found[region.name] = (*found.get(region.name, ()), region)
    return found
