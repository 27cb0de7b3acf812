"""Pairs: the pictures and texts that explanations are judged on, read once for all metrics and methods."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from isthmus.encoders.dual import DualEncoder, Frame, PreparedImage
from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.pictures import Picture, open_picture
from isthmus.encoders.tower import Inputs, Side, unit
from isthmus.errors import InputError, ModelError, OptionError
from isthmus.explanation import Explanation
from isthmus.frozen import Array
from isthmus.masking import Masking, masking
from isthmus.metrics.maps import Map, map_of, on_patches

SIDES: tuple[Side, Side] = ("image", "text")
REPLACEMENTS = {"image": ("mean", "blur", "zero", "black"), "text": ("mean", "zero", "remove")}
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Pairs:
    """B pictures with a text each, as a model reads them.

    Attributes:
        model: the model that is explained.
        ids: a name for each pair; what is drawn at random for a pair follows from it alone.
        texts: the texts.
        inputs, embeddings, layouts: of each side; embeddings are unit vectors `(B, D)`.
        frames: which part of each picture the model saw.
        regions: `(B, H, W)` bool in the pixels of the model's input, where what the text names is; None if unknown.
        wrong: for each text the `(start, end)` of the word in it that is wrong for the picture; None if unknown.
        seed: of all random draws.
    """

    model: DualEncoder
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    inputs: dict[Side, Inputs]
    embeddings: dict[Side, Tensor]
    layouts: dict[Side, list[TokenLayout]]
    frames: tuple[Frame, ...]
    regions: Array | None = None
    wrong: tuple[tuple[int, int], ...] | None = None
    seed: int = 0
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """B, the number of pairs."""
        return len(self.ids)

    def once(self, key: Any, make: Callable[[], _T]) -> _T:
        """What several metrics or methods share is computed once for these pairs."""
        if key not in self._kept:
            self._kept[key] = make()
        found: _T = self._kept[key]
        return found

    def masking(self, side: Side, replacement: str) -> Masking:
        """One side, ready to be masked with a replacement.

        Raises:
            OptionError: no such replacement for this side.
            ModelError: the model has no attention mask to take tokens out of.
        """
        if replacement not in REPLACEMENTS[side]:
            raise OptionError(
                f"There is no replacement {replacement!r} for the {side}: choose {', '.join(REPLACEMENTS[side])}."
            )
        tower = self.model.tower(side)
        if replacement == "remove" and "attention_mask" not in self.inputs[side]:
            raise ModelError("This model reads its texts without an attention mask: choose a replacement but remove.")
        return self.once(
            ("masking", side, replacement),
            lambda: masking(tower, self.inputs[side], self.layouts[side], replacement=replacement),
        )

    def target(self, side: Side, score: str = "cosine") -> Tensor:
        """What a side's unit embeddings are multiplied with to give the score, `(B, D)`.

        Args:
            side: the side that is perturbed.
            score: "cosine" with the partner, or "margin": that less the mean cosine with the model's reference set
                of the partner's side (32 captions, 18 pictures), which asks "why this rather than anything".

        Raises:
            OptionError: no such score; a margin for a model that has no reference set.
        """
        other: Side = "text" if side == "image" else "image"
        if score == "cosine":
            return self.embeddings[other]
        if score != "margin":
            raise OptionError(f"There is no score {score!r}: choose cosine or margin.")
        mean = self.once(("margin", other), lambda: self.model.tower(other).reference_embeddings().mean(0))
        return self.embeddings[other] - mean

    def players(self, side: Side) -> Tensor:
        """`(B, P)` positions of the patches or tokens of each pair, -1 beyond its own."""
        content = [layout.content for layout in self.layouts[side]]
        found = torch.full((len(self), max(map(len, content))), -1)
        for row, own in zip(found, content, strict=True):
            row[: len(own)] = torch.tensor(own)
        return found

    def generator(self, row: int, purpose: str) -> torch.Generator:
        """A generator on the CPU that depends on the pair's id, the seed and the purpose alone."""
        name = f"{self.seed}/{purpose}/{self.ids[row]}"
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True, eq=False)
class Judged:
    """Pairs and one method's maps of them: what every metric takes.

    Attributes:
        pairs: the pairs.
        maps: for each explained side a map for each pair.
        method: the method's name.
    """

    pairs: Pairs
    maps: dict[Side, tuple[Map, ...]]
    method: str = ""
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Any, make: Callable[[], _T]) -> _T:
        """What several metrics of these maps share is computed once."""
        if key not in self._kept:
            self._kept[key] = make()
        found: _T = self._kept[key]
        return found

    def scores(self, side: Side) -> Tensor:
        """`(B, P)` float64 scores of the patches or tokens, in the order of `Pairs.players`, NaN beyond a pair's own.

        Raises:
            InputError: this side was not explained.
        """
        maps = self.of(side)
        found = torch.full(tuple(self.pairs.players(side).shape), torch.nan, dtype=torch.float64)
        for row, one, layout in zip(found, maps, self.pairs.layouts[side], strict=True):
            own = torch.tensor(one.scores, dtype=torch.float64) if layout.grid is None else on_patches(one, layout.grid)
            row[: len(own)] = own
        return found

    def known(self, side: Side) -> Tensor:
        """`(B,)` whether all of a pair's own positions have a finite score: without one a map has no order."""
        return (torch.isfinite(self.scores(side)) | (self.pairs.players(side) < 0)).all(1)

    def of(self, side: Side) -> tuple[Map, ...]:
        """The maps of a side. Raises InputError where it was not explained."""
        if side not in self.maps:
            raise InputError(f"The {side} was not explained, but a metric of it was asked for: explain both sides.")
        return self.maps[side]


def pairs_of(
    model: DualEncoder,
    images: Sequence[Any],
    texts: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    regions: Array | None = None,
    wrong: Sequence[tuple[int, int]] | None = None,
    seed: int = 0,
    truncate: bool = False,
) -> Pairs:
    """Read pairs of pictures and texts.

    Args:
        model: what `isthmus.load` gives.
        images, texts: one text for each picture, as `isthmus.explain` takes them.
        ids, regions, wrong, seed: see `Pairs`; ids are numbers where none are given.
        truncate: cut texts that are too long.

    Raises:
        InputError: a picture or text that cannot be used; lists of unequal length.
    """
    if not images or len(images) != len(texts):
        raise InputError(f"{len(images)} pictures and {len(texts)} texts do not pair off: give as many of each.")
    for name, given in (("ids", ids), ("regions", regions), ("wrong", wrong)):
        if given is not None and len(given) != len(texts):
            raise InputError(f"{len(given)} {name} do not fit {len(texts)} pairs: give one for each.")
    opened: list[Picture | PreparedImage] = [
        one if isinstance(one, PreparedImage) else open_picture(one) for one in images
    ]
    image_inputs, frames, image_layouts = model.processing.pictures(opened)
    text_inputs, text_layouts, _ = model.processing.texts(list(texts), truncate=truncate)
    return Pairs(
        model,
        tuple(ids) if ids is not None else tuple(map(str, range(len(texts)))),
        tuple(texts),
        {"image": image_inputs, "text": text_inputs},
        {"image": unit(model.image.embed(image_inputs)), "text": unit(model.text.embed(text_inputs))},
        {"image": image_layouts, "text": text_layouts},
        tuple(frames),
        None if regions is None else np.asarray(regions, dtype=bool),
        None if wrong is None else tuple(wrong),
        seed,
    )


def judged(explanations: Sequence[Explanation], model: DualEncoder, images: Sequence[Any] | None = None) -> Judged:
    """What metrics take, made of explanations and the model that they explain.

    Args:
        explanations: of one method, one for each pair.
        model: the model.
        images: the pictures; by default those that the explanations name as their source, or else the copy that
            they hold, which is exact up to 1,024 pixels a side.

    What is drawn at random for a pair follows from its source and its text, whatever else is judged beside it.

    Raises:
        InputError: no explanations, or one without a picture or a text.
    """
    if not explanations:
        raise InputError("There is nothing to judge: give at least one explanation.")
    if images is None:
        images = [_picture(one) for one in explanations]
    ids = [f"{one.source} {one.caption}" for one in explanations]
    pairs = pairs_of(model, images, [one.caption for one in explanations], ids=ids, truncate=True)
    sides = [side for side in SIDES if getattr(explanations[0], side) is not None]
    maps = {side: tuple(map_of(one, side) for one in explanations) for side in sides}
    return Judged(pairs, maps, explanations[0].provenance.method)


def _picture(explanation: Explanation) -> Any:
    if explanation.picture is None or not explanation.caption:
        raise InputError("A metric needs the picture and the text of each explanation: explain pairs, not one side.")
    try:
        return open_picture(explanation.source) if explanation.source else explanation.picture
    except InputError:
        return explanation.picture
