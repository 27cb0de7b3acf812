"""The reference set: 18 pictures and 32 captions whose mean hidden state stands for "nothing in particular"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.dual import Processing
from isthmus.encoders.layout import content_of
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.tower import Inputs, Side

_FOLDER = Path(__file__).parent / "reference_set"
EXAMPLE = min(_FOLDER.glob("*.jpg"))


def reference_inputs(processing: Processing, side: Side) -> Iterator[tuple[Inputs, Tensor]]:
    """Yield inputs of the reference set for one side, and masks `(B, T)` of their patches or words."""
    if side == "text":
        texts = (_FOLDER / "captions.txt").read_text(encoding="utf-8").splitlines()
        inputs, layouts, _ = processing.texts(texts, truncate=True)
        yield inputs, content_of(layouts)
        return
    by_size: dict[tuple[Any, ...], list[tuple[Inputs, Tensor]]] = {}  # some processors do not crop to one size
    for path in sorted(_FOLDER.glob("*.jpg")):
        inputs, _, layouts = processing.pictures([open_picture(path)])
        by_size.setdefault(shapes_of(inputs), []).append((inputs, content_of(layouts)))
    for same in by_size.values():
        yield together([inputs for inputs, _ in same]), torch.cat([mask for _, mask in same])


def shapes_of(inputs: Inputs) -> tuple[Any, ...]:
    """What inputs must have in common to run as one batch without padding."""
    return tuple((name, tuple(value.shape[1:])) for name, value in inputs.items() if isinstance(value, Tensor))


def together(inputs: Sequence[Inputs]) -> Inputs:
    """One batch of several inputs; shorter ones are padded behind with 0, and what is no tensor is that of the first.

    So join patches with their masks, and pixels of one size.
    """
    return {
        name: _stacked([one[name] for one in inputs]) if isinstance(value, Tensor) else value
        for name, value in inputs[0].items()
    }


def _stacked(values: Sequence[Tensor]) -> Tensor:
    if values[0].ndim not in (2, 3):
        return torch.cat(list(values))
    longest = max(one.shape[1] for one in values)
    behind = (0,) * (2 * (values[0].ndim - 2) + 1)
    return torch.cat([nn.functional.pad(one, (*behind, longest - one.shape[1])) for one in values])
