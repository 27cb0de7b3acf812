"""Turns a method's raw scores per position into an Explanation's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.encoders.dual import Frame
from isthmus.encoders.layout import TokenLayout
from isthmus.errors import ModelError
from isthmus.explanation import (
    Array,
    Completeness,
    ImageAttribution,
    Special,
    TextAttribution,
    Token,
    Word,
)
from isthmus.joint import JointAttribution
from isthmus.methods.joint import Interaction
from isthmus.methods.registry import Attribution


@dataclass(frozen=True, eq=False)
class Row:
    """One input's share of a batch's Attribution, on the CPU."""

    scores: Tensor
    completeness: Completeness
    options: Mapping[str, Any]
    notes: tuple[str, ...]
    published: bool
    flat: float
    grid: tuple[int, int] | None


def rows_of(attribution: Attribution) -> list[Row]:
    """Take a batch apart.

    Raises:
        ModelError: a score is NaN or infinite.
    """
    scores = attribution.scores.detach().cpu()
    if not bool(torch.isfinite(scores).all()):
        raise ModelError(
            "The scores are not finite (NaN or infinity): the model's score has no slope somewhere on the way to the "
            'closed state, or overflows; choose closed="floor" or "mean", another layer, or dtype=float32.'
        )
    opened = attribution.open.tolist()
    closed = [None] * len(opened) if attribution.closed is None else attribution.closed.tolist()
    totals = scores.double().sum(-1).tolist()
    return [
        Row(
            scores[i],
            Completeness(opened[i], closed[i], totals[i]),
            jsonable(attribution.options[i]),
            attribution.notes[i] if attribution.notes else (),
            attribution.published,
            attribution.flat,
            attribution.grid,
        )
        for i in range(len(opened))
    ]


def image_attribution(
    row: Row, layout: TokenLayout, frame: Frame, target: str, notes: tuple[str, ...] = ()
) -> ImageAttribution:
    """Scores on the patch grid, special positions apart."""
    assert layout.grid is not None, "the layout of a picture has a grid"
    own = row.scores if row.grid else row.scores[list(layout.patches)]
    grid = own.reshape(row.grid or layout.grid)
    return ImageAttribution(
        scores=grid.numpy(),
        special=() if row.grid else _special(row, layout),
        crop=frame.crop,
        size=frame.size,
        input_size=frame.input_size,
        completeness=row.completeness,
        target=target,
        options=row.options,
        published=_published_image(grid, frame.input_size, row.flat) if row.published else None,
        notes=(*row.notes, *notes),
    )


def text_attribution(
    row: Row, layout: TokenLayout, text: str, target: str, notes: tuple[str, ...] = ()
) -> TextAttribution:
    """Scores of tokens, and of words as the sums of their tokens, special positions apart."""
    scores = row.scores.double().tolist()
    tokens = tuple(Token(text[p.start : p.end], p.start, p.end, p.position, scores[p.position]) for p in layout.pieces)
    index = {token.position: i for i, token in enumerate(tokens)}
    words = tuple(
        Word(
            text[w.start : w.end],
            w.start,
            w.end,
            sum(scores[p] for p in w.positions),
            tuple(index[p] for p in w.positions),
        )
        for w in layout.words
    )
    kept = sorted([p.position for p in layout.pieces] + [position for _, position in layout.special])
    return TextAttribution(
        text=text,
        tokens=tokens,
        words=words,
        special=_special(row, layout),
        completeness=row.completeness,
        target=target,
        options=row.options,
        published=minmax(row.scores[kept], row.flat).numpy() if row.published else None,
        notes=(*row.notes, *notes),
    )


def joint_attribution(found: Interaction, row: int, image: TokenLayout, text: TokenLayout) -> JointAttribution:
    """The joint map of one pair of a batch.

    Raises:
        ModelError: a score is NaN or infinite.
    """
    if not bool(torch.isfinite(found.matrix[row]).all()):
        raise ModelError('The joint map is not finite (NaN or infinity): choose closed="floor" or "mean".')
    assert image.grid is not None, "the layout of a picture has a grid"
    tokens = tuple(piece.position for piece in text.pieces)
    index = {position: i for i, position in enumerate(tokens)}
    return JointAttribution(
        matrix=found.matrix[row].cpu().numpy(),
        text_alone=found.text_alone[row].cpu().numpy(),
        image_alone=found.image_alone[row].cpu().numpy(),
        constant=float(found.constant[row]),
        similarity=float(found.similarity[row]),
        grid=image.grid,
        patches=image.patches,
        tokens=tokens,
        words=tuple(tuple(index[p] for p in word.positions) for word in text.words),
        options=jsonable(found.options[row]),
        notes=found.notes,
    )


def _special(row: Row, layout: TokenLayout) -> tuple[Special, ...]:
    return tuple(Special(name, position, float(row.scores[position])) for name, position in layout.special)


def _published_image(grid: Tensor, input_size: tuple[int, int], flat: float) -> Array:
    large = nn.functional.interpolate(grid[None, None].float(), size=input_size, mode="bilinear", align_corners=False)
    return np.asarray(minmax(large[0, 0], flat).numpy())


def minmax(values: Tensor, flat: float) -> Tensor:
    """Values stretched to [0, 1] as published code does; `flat` where all are the same."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.full_like(values, flat)


def jsonable(value: Any) -> Any:
    """An option as it can be written down."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{type(value).__name__.lower()} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(jsonable(v) for v in value)
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
