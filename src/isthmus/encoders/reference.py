"""The reference set: 18 pictures and 32 captions whose mean hidden state stands for "nothing in particular"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from isthmus.encoders.dual import Processing
from isthmus.encoders.layout import content_of
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.tower import Inputs, Side
from isthmus.errors import InputError

_FOLDER = Path(__file__).parent / "reference_set"
EXAMPLE = min(_FOLDER.glob("*.jpg"))


def reference_inputs(processing: Processing, side: Side) -> Iterator[tuple[Inputs, Tensor]]:
    """Yield inputs of the reference set for one side, and masks `(B, T)` of their patches or words."""
    if side == "text":
        texts = (_FOLDER / "captions.txt").read_text(encoding="utf-8").splitlines()
        inputs, layouts, _ = processing.texts(texts, truncate=True)
        yield inputs, content_of(layouts)
        return
    by_size: dict[tuple[int, ...], list[tuple[Inputs, Tensor]]] = {}  # some processors do not crop to one size
    for path in sorted(_FOLDER.glob("*.jpg")):
        inputs, _, layouts = processing.pictures([open_picture(path)])
        by_size.setdefault(tuple(inputs["pixel_values"].shape), []).append((inputs, content_of(layouts)))
    for same in by_size.values():
        yield together([inputs for inputs, _ in same]), torch.cat([mask for _, mask in same])


def together(inputs: Sequence[Inputs]) -> Inputs:
    """One batch of several inputs; sequences of patches are padded with zeros at their ends to the longest.

    What is no tensor is that of the first.

    Raises:
        InputError: pixels of several sizes.
    """
    first = inputs[0]
    return {
        name: _padded([one[name] for one in inputs]) if isinstance(value, Tensor) else value
        for name, value in first.items()
    }


def _padded(values: Sequence[Tensor]) -> Tensor:
    sizes = {tuple(value.shape[1:]) for value in values}
    if len(sizes) == 1:
        return torch.cat([*values])
    if values[0].ndim > 3:
        raise InputError(
            f"The model's inputs of these pictures have {len(sizes)} sizes: explain pictures of one size at once "
            "(batch_size=1), or load the model with an image_size."
        )
    longest = max(value.shape[1] for value in values)
    found = [values[0].new_zeros(len(value), longest, *value.shape[2:]) for value in values]
    for padded, value in zip(found, values, strict=True):
        padded[:, : value.shape[1]] = value
    return torch.cat(found)
