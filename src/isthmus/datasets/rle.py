"""COCO's run-length masks, as numbers or as their compressed string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from isthmus.datasets.values import BadRecordError
from isthmus.errors import InputError
from isthmus.frozen import Array


@dataclass(frozen=True)
class RunShape:
    """A mask as runs of 0 and 1 in turn, beginning with 0, down the columns from the left.

    Attributes:
        height, width: of the mask, in pixels.
        counts: the lengths of the runs, or the string that COCO makes of them.
    """

    height: int
    width: int
    counts: str | tuple[int, ...]

    def mask(self, size: tuple[int, int]) -> Array:
        """See `Shape`. Raises InputError where the runs do not fill the mask."""
        runs = decode_counts(self.counts) if isinstance(self.counts, str) else list(self.counts)
        if any(run < 0 for run in runs) or sum(runs) != self.height * self.width:
            raise InputError(f"A run-length mask does not fill its {self.width} x {self.height} pixels: mend it.")
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        found = flat.reshape(self.width, self.height).T
        if found.shape != (size[1], size[0]):
            image = Image.fromarray(np.ascontiguousarray(found))
            found = np.asarray(image.resize(size, Image.Resampling.NEAREST), dtype=bool)
        return np.ascontiguousarray(found)


def decode_counts(text: str) -> list[int]:
    """The runs in COCO's compressed string.

    A number is written in groups of five bits, the lowest first, each as the character 48 + group; bit 5 says that
    another group follows, and bit 4 of the last is the sign. From the fourth run on, the difference to the run before
    the last is written (`maskApi.c` of cocoapi).

    Raises:
        InputError: the string ends in the middle of a number, or holds other characters.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise InputError(f"A run-length mask holds the character {letter!r}, which is none of COCO's: mend it.")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise InputError("A run-length mask ends in the middle of a number: mend it.")
    return runs


def run_shape(segmentation: Mapping[str, Any]) -> RunShape:
    """The shape of COCO's `{"size": [height, width], "counts"}`. Raises BadRecordError where it is none."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, Sequence) and len(size) == 2 and all(isinstance(side, int) for side in size)):
        raise BadRecordError("Its run-length mask has no size: mend the annotation.")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    if isinstance(counts, list) and all(isinstance(run, int) for run in counts):
        return RunShape(size[0], size[1], tuple(counts))
    if not isinstance(counts, str):
        raise BadRecordError("Its run-length mask has no counts: mend the annotation.")
    return RunShape(size[0], size[1], counts)
