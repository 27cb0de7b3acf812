"""Which positions of an image tower's sequence are patches: found by changing pixels and seeing what changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.finding import Parts
from isthmus.encoders.running import Encode, entering_states
from isthmus.encoders.tower import Inputs
from isthmus.errors import ModelError

_BY_HAND = "describe the tower by hand with isthmus.Tower(...)."


@dataclass(frozen=True)
class Patches:
    """Where a picture's patches are.

    Attributes:
        side: of a patch in pixels of the model's input; of a convolutional tower, what a place of its last state
            stands for, rounded up.
        before, after: how many special positions stand before and after the patches, which go row by row.
    """

    side: int
    before: int = 0
    after: int = 0

    @property
    def names_before(self) -> tuple[str, ...]:
        """CLS, and registers behind it."""
        return tuple("CLS" if i == 0 else f"REG{i}" for i in range(self.before))

    @property
    def names_after(self) -> tuple[str, ...]:
        """Names of the positions behind the patches, of which only the model knows what they are."""
        return tuple(f"TOKEN{i + 1}" for i in range(self.after))


def patches_of(encode: Encode, inputs: Inputs, parts: Parts, *, entering: str) -> Patches:
    """Find where the patches of a picture stand.

    Args:
        encode: the tower's own code.
        inputs: of one picture, pixels `(1, 3, H, W)` or, cut into N patches already, `(1, N, values)`.
        parts: of this tower.
        entering: the name of the pixels.

    Raises:
        ModelError: a patch is not one position, or the patches do not stand row by row.
    """
    pixels = inputs[entering]
    if parts.entering.ndim == 4:
        if (pixels.shape[-2] == pixels.shape[-1]) != (parts.leaving.shape[-2] == parts.leaving.shape[-1]):
            raise ModelError(f"The states of this image tower are not (batch, channels, rows, columns): {_BY_HAND}")
        return Patches(-(-pixels.shape[-1] // parts.leaving.shape[-1]))
    if pixels.ndim == 3:
        side = round((pixels.shape[-1] / 3) ** 0.5)
        count = pixels.shape[1]
        changed = {i: _raised(pixels, (0, i)) for i in _some(count, count)}
        return _checked(encode, inputs, parts, entering, side, changed, count)
    if parts.patch is None:
        raise ModelError(
            "No convolution of this image tower cuts the pixels into patches: describe the towers by hand and give the "
            "side of a patch with isthmus.from_towers(..., patch=16)."
        )
    side = _side(pixels, parts.patch, parts.entering.shape[1])
    rows, columns = (length // side for length in pixels.shape[-2:])
    changed = {}
    for i in _some(rows * columns, columns):
        top, left = i // columns * side, i % columns * side
        changed[i] = _raised(pixels, (..., slice(top, top + side), slice(left, left + side)))
    return _checked(encode, inputs, parts, entering, side, changed, rows * columns)


def _side(pixels: Tensor, stride: int, length: int) -> int:
    """The first convolution's stride; of several (MobileCLIP-B), what gives as many patches as there are positions."""
    height, width = pixels.shape[-2:]
    if (height // stride) * (width // stride) <= length:
        return stride
    sides = (n for n in range(stride, min(height, width) + 1, stride) if (height // n) * (width // n) <= length)
    return next(sides, stride)


def _some(count: int, columns: int) -> list[int]:
    """Patches that tell the order of all: the first two, the end of a row and the start of the next, middle and last.

    Raising only the first and last would miss an order column by column, or one that moves the patches between.
    """
    return sorted({0, 1, columns - 1, columns, count // 2, count - 1} & {*range(count)})


def _raised(pixels: Tensor, where: tuple[Any, ...]) -> Tensor:
    """A copy that is brighter there."""
    other = pixels.clone()
    other[where] += 1
    return other


def _checked(
    encode: Encode, inputs: Inputs, parts: Parts, entering: str, side: int, changed: Mapping[int, Tensor], count: int
) -> Patches:
    """Each of these patches, changed alone, must change one position, as far along the sequence as it is in rows."""
    copies = torch.cat([inputs[entering], *changed.values()])
    others = {k: v.expand(len(copies), *v.shape[1:]) if _is_row(v) else v for k, v in inputs.items() if k != entering}
    states = entering_states(encode, {**others, entering: copies}, parts.first).float()
    states = states.transpose(0, 1) if parts.sequence_first else states
    if not bool(torch.isfinite(states).all()):
        raise ModelError(
            "The first block of this image tower reads NaN or infinity: the weights are damaged; load them again."
        )
    differ = (states[1:] - states[0]).abs().amax(-1) > 1e-5 * states.abs().max()
    found = [one.nonzero()[:, 0].tolist() for one in differ]
    before = found[0][0] if found[0] else 0
    if found != [[before + i] for i in changed]:
        raise ModelError(f"The {count} patches of this image tower do not stand row by row in its sequence: {_BY_HAND}")
    return Patches(side, before, states.shape[1] - before - count)


def _is_row(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == 1
