"""What is being explained: a score that is linear in the explained side's unit embedding.

The score is `f = <u / |u|, t>` with `u` the embedding of the explained side and `t` a fixed vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from isthmus.encoders.dual import DualEncoder, PreparedImage
from isthmus.encoders.memory import in_chunks
from isthmus.encoders.pictures import PICTURE_SUFFIXES, Picture, open_picture
from isthmus.encoders.reference import shapes_of, together
from isthmus.encoders.tower import Side, accumulator, unit
from isthmus.encoders.weights import version_of
from isthmus.errors import InputError, OptionError


@dataclass(frozen=True)
class Pair:
    """The cosine with the partner: `t` is the partner's unit embedding."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """Why this rather than that: `t = mean(for_) - mean(against)` of unit embeddings, not renormalised.

    Items are texts (strings), which explain a picture, or pictures (`pathlib.Path` of one or of a whole folder, PIL
    images, arrays, `PreparedImage`), which explain a text. A string is always a text. Either list may be empty, not
    both.
    They are embedded once for a model, by the first call that uses this object.
    Linear in the explained embedding, so swapping the lists negates every map (Lin et al., COCOA, ICLR 2023).
    """

    for_: Sequence[Any] = ()
    against: Sequence[Any] = ()
    _kept: dict[Any, FixedTarget] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse items of both kinds."""
        if not all(isinstance(items, (list, tuple)) for items in (self.for_, self.against)):
            raise OptionError("Contrast takes lists: Contrast(for_=['a dog'], against=['a cat']).")
        if not self.for_ and not self.against:
            raise OptionError("Contrast needs at least one text or picture in for_ or against.")
        if len({modality(item) for item in (*self.for_, *self.against)}) > 1:
            raise OptionError("Contrast takes texts or pictures, not both: a path to a picture is a pathlib.Path.")

    @property
    def explains(self) -> Side:
        """The side that it explains: texts explain a picture, pictures a text."""
        return "image" if modality((*self.for_, *self.against)[0]) == "text" else "text"


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


def modality(item: Any) -> Side:
    """What an item of a list is: a string is a text, all else a picture, or a folder of them."""
    if isinstance(item, str):
        return "text"
    if isinstance(item, (Path, Image.Image, np.ndarray, Tensor, Picture, PreparedImage)):
        return "image"
    raise OptionError(f"Contrast takes texts and pictures, not {type(item).__name__}.")


def target_vector(model: DualEncoder, target: Contrast | Direction, *, truncate: bool = False) -> FixedTarget:
    """The vector of a target that does not depend on the partner."""
    if isinstance(target, Direction):
        return FixedTarget(_direction(model, target))
    key = (id(model), version_of(model.model), truncate)
    if key not in target._kept:
        target._kept[key] = _difference(model, target, truncate=truncate)
    return target._kept[key]


def _difference(model: DualEncoder, target: Contrast, *, truncate: bool) -> FixedTarget:
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
    found, notes = embeddings_of(model, items, truncate=truncate)
    return FixedTarget(found.mean(0), notes)


def embeddings_of(
    model: DualEncoder, items: Sequence[Any], *, truncate: bool = False, batch_size: int = 64
) -> tuple[Tensor, tuple[str, ...]]:
    """Unit embeddings `(N, D)` of texts, or of pictures and whole folders of them, and notes on the texts.

    Raises:
        InputError: an item that cannot be used; a folder without a picture.
    """
    items = expanded(items)
    if modality(items[0]) == "image":
        parts: list[Tensor] = []
        in_chunks(lambda part: parts.append(_pictures(model, items[part])), len(items), batch_size)
        return torch.cat(parts), ()
    return model.kept_texts(
        (tuple(items), truncate, batch_size),
        lambda: _texts(model, items, truncate, batch_size),
        lambda found: found[0].nbytes,
    )


def _texts(model: DualEncoder, items: Sequence[str], truncate: bool, batch_size: int) -> tuple[Tensor, tuple[str, ...]]:
    order = sorted(range(len(items)), key=lambda i: len(items[i]))  # texts of like length need little padding
    found: list[Tensor] = []
    notes: list[str] = []

    def run(part: slice) -> None:
        texts = [items[i] for i in order[part]]
        inputs, _, said = model.processing.texts(texts, truncate=truncate)
        found.append(unit(model.text.embed(inputs)))
        notes.extend(f"{text!r}: {note}" for text, note in zip(texts, said, strict=True) if note)

    in_chunks(run, len(items), batch_size)
    back = torch.tensor(order, device=found[0].device).argsort()
    return torch.cat(found)[back], tuple(notes)


def _pictures(model: DualEncoder, items: Sequence[Any]) -> Tensor:
    """Unit embeddings `(N, D)`; pictures that the processor leaves at sizes of their own run apart."""
    by_size: dict[tuple[Any, ...], list[int]] = {}
    inputs = []
    for i, item in enumerate(items):
        picture = item if isinstance(item, PreparedImage) else open_picture(item)
        inputs.append(model.processing.pictures([picture])[0])
        by_size.setdefault(shapes_of(inputs[i]), []).append(i)
    found: dict[int, Tensor] = {}
    for same in by_size.values():
        found |= zip(same, unit(model.image.embed(together([inputs[i] for i in same]))), strict=True)
    return torch.stack([found[i] for i in range(len(items))])


def expanded(items: Sequence[Any]) -> list[Any]:
    """Folders among the items give way to their pictures, in the order of their names."""
    found: list[Any] = []
    for item in items:
        if isinstance(item, Path) and item.is_dir():
            inside = sorted(p for p in item.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
            if not inside:
                raise InputError(f"The folder {str(item)!r} holds no picture: give one that does.")
            found += inside
        else:
            found.append(item)
    return found


def bank_side(items: Any) -> Side | None:
    """The side that a bank can serve: texts a picture, pictures a text; None of vectors, which serve both.

    Raises:
        OptionError: an empty bank, or one of several kinds.
    """
    if isinstance(items, Tensor):
        if items.ndim != 2 or not len(items) or not bool(torch.isfinite(items).all()):
            raise OptionError(f"A bank of vectors is finite and (items, D), not {tuple(items.shape)}.")
        return None
    listed = _bank_items(items)
    kinds = {_kind(item) for item in listed}
    if len(kinds) != 1 or None in kinds:
        raise OptionError("bank takes texts, or pictures and folders as pathlib.Path, at least one and of one kind.")
    return "image" if kinds == {"text"} else "text"


def bank_embeddings(model: DualEncoder, items: Any, *, truncate: bool = False) -> Tensor:
    """Unit embeddings `(M, D)` of a bank: vectors as they are, made of length one, or items that are embedded."""
    if isinstance(items, Tensor):
        return unit(items.to(model.device))
    return embeddings_of(model, _bank_items(items), truncate=truncate)[0]


def _bank_items(items: Any) -> list[Any]:
    return list(items) if isinstance(items, (list, tuple)) else [items]


def _kind(item: Any) -> Side | None:
    try:
        return modality(item)
    except OptionError:
        return None


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
