"""What is being explained: a score that is linear in the explained side's unit embedding.

The score is `f = <u / |u|, t>` with `u` the embedding of the explained side and `t` a fixed vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from isthmus.encoders.dual import DualEncoder, PreparedImage
from isthmus.encoders.pictures import Picture, open_picture
from isthmus.encoders.tower import Side, accumulator, unit
from isthmus.errors import OptionError


@dataclass(frozen=True)
class Pair:
    """The cosine with the partner: `t` is the partner's unit embedding."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """Why this rather than that: `t = mean(for_) - mean(against)` of unit embeddings, not renormalised.

    Items are texts (strings), which explain a picture, or pictures (`pathlib.Path`, PIL images, arrays,
    `PreparedImage`), which explain a text. A string is always a text. Either list may be empty, not both.
    Linear in the explained embedding, so swapping the lists negates every map (Lin et al., COCOA, ICLR 2023).
    """

    for_: Sequence[Any] = ()
    against: Sequence[Any] = ()

    def __post_init__(self) -> None:
        """Refuse items of both kinds."""
        if not all(isinstance(items, (list, tuple)) for items in (self.for_, self.against)):
            raise OptionError("Contrast takes lists: Contrast(for_=['a dog'], against=['a cat']).")
        if not self.for_ and not self.against:
            raise OptionError("Contrast needs at least one text or picture in for_ or against.")
        if len({_modality(item) for item in (*self.for_, *self.against)}) > 1:
            raise OptionError("Contrast takes texts or pictures, not both: a path to a picture is a pathlib.Path.")

    @property
    def explains(self) -> Side:
        """The side that it explains: texts explain a picture, pictures a text."""
        return "image" if _modality((*self.for_, *self.against)[0]) == "text" else "text"


@dataclass(frozen=True, eq=False)
class Direction:
    """Any vector `(D,)` of the joint space, used as it is; it explains both sides."""

    vector: Tensor
    name: str = "direction"


Target = Pair | Contrast | Direction


@dataclass(frozen=True, eq=False)
class FixedTarget:
    """A target's vector `(D,)`, in float32 or better, and what a reader should know of its texts."""

    vector: Tensor
    notes: tuple[str, ...] = ()


def _modality(item: Any) -> Side:
    if isinstance(item, str):
        return "text"
    if isinstance(item, (Path, Image.Image, np.ndarray, Tensor, Picture, PreparedImage)):
        return "image"
    raise OptionError(f"Contrast takes texts and pictures, not {type(item).__name__}.")


def target_vector(model: DualEncoder, target: Contrast | Direction, *, truncate: bool = False) -> FixedTarget:
    """The vector of a target that does not depend on the partner."""
    if isinstance(target, Direction):
        return FixedTarget(_direction(model, target))
    plus, minus = (mean_embedding(model, items, truncate=truncate) for items in (target.for_, target.against))
    notes = tuple(note for part in (plus, minus) if part is not None for note in part.notes)
    if plus is None or minus is None:
        return FixedTarget(plus.vector if plus is not None else -minus.vector, notes)  # type: ignore[union-attr]
    return FixedTarget(plus.vector - minus.vector, notes)


def _direction(model: DualEncoder, target: Direction) -> Tensor:
    try:
        vector = torch.as_tensor(target.vector).detach().to(accumulator(model.dtype)).to(model.device, copy=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(f"Direction takes a vector of numbers, not {type(target.vector).__name__}.") from error
    if vector.ndim != 1 or not bool(torch.isfinite(vector).all()):
        raise OptionError(f"Direction takes finite numbers of shape (D,), not {tuple(vector.shape)}.")
    return vector


def mean_embedding(model: DualEncoder, items: Sequence[Any], *, truncate: bool = False) -> FixedTarget | None:
    """Mean of the unit embeddings of texts or pictures; None of none."""
    if not items:
        return None
    if _modality(items[0]) == "text":
        inputs, _, notes = model.processing.texts(list(items), truncate=truncate)
        named = tuple(f"{text!r}: {note}" for text, note in zip(items, notes, strict=True) if note)
        return FixedTarget(unit(model.text.embed(inputs)).mean(0), named)
    pictures = [item if isinstance(item, PreparedImage) else open_picture(item) for item in items]
    inputs, _, _ = model.processing.pictures(pictures)
    return FixedTarget(unit(model.image.embed(inputs)).mean(0))


def describe(target: Target, partner: str) -> str:
    """What a target explains, in words."""
    if isinstance(target, Direction):
        return f"dot product with {target.name}"
    if isinstance(target, Pair):
        return f"cosine with {partner}"
    plus, minus = ([repr(name) for name in named(items)] for items in (target.for_, target.against))
    parts = [f"cosine with {_listed(plus)}"] if plus else []
    return " ".join(parts + ([f"rather than with {_listed(minus)}"] if minus else []))


def named(items: Sequence[Any]) -> tuple[str, ...]:
    """Texts as they are, pictures by their path where they have one."""
    return tuple(
        str(item)
        if isinstance(item, (str, Path))
        else (item.source or "a picture")
        if isinstance(item, Picture)
        else "a picture"
        for item in items
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) == 1 else f"the mean of {len(names)} ({shown}{', ...' if len(names) > 3 else ''})"
