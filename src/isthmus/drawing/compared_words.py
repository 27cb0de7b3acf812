"""What a comparison says in words and numbers, the same in the figure and on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from isthmus.drawing.heatmap import outlined
from isthmus.drawing.scale import Scale
from isthmus.explanation import Explanation

if TYPE_CHECKING:
    from isthmus.comparison import CompareRow, Comparison


def facts_of(one: Explanation) -> list[tuple[str, str]]:
    """What all rows share: the similarity, the model and how it was run."""
    p = one.provenance
    similarity = [] if one.similarity is None else [("similarity", f"{one.similarity:.3f}")]
    return [*similarity, ("model", p.model), ("weights", p.revision), ("run", f"{p.dtype} on {p.device}")]


def figures_of(comparison: Comparison, row: CompareRow) -> list[tuple[str, str]]:
    """A row's cost and agreement, each with its label."""
    agreed = [f"{side} {value}" for side, value in agreement(comparison, row)]
    return [*cost(row), *(("" if i else "agreement", value) for i, value in enumerate(agreed))]


def cost(row: CompareRow) -> list[tuple[str, str]]:
    """Time and passes in words; nothing of a method that refused."""
    if row.explanation is None:
        return []
    told = [] if row.seconds is None else [("time", seconds(row.seconds))]
    parts = [f"{n:g} {name}" for name, n in (("forward", row.forward), ("backward", row.backward)) if n is not None]
    return [*told, ("passes", ", ".join(parts))] if parts else told


def seconds(value: float) -> str:
    """A time with three digits or so: 0.083 s, 1.24 s, 131 s."""
    return f"{value:.3f} s" if value < 0.1 else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def agreement(comparison: Comparison, row: CompareRow) -> list[tuple[str, str]]:
    """For each side that a row has, its rank correlation with the first row in words."""
    if row.explanation is None:
        return []
    sides = (
        ("image", row.explanation.image, comparison.first("image"), row.agreement_image),
        ("text", row.explanation.text, comparison.first("text"), row.agreement_text),
    )
    return [
        (name, "reference" if first is row else "undefined" if value is None else f"{value:+.2f}")
        for name, side, first, value in sides
        if side is not None
    ]


def in_units(scale: Scale, row: CompareRow) -> Scale:
    """A scale whose unit is the method's own."""
    each = scale.unit.removeprefix("score ")
    return Scale(scale.limit, f"{row.units} {each}".strip(), scale.on_picture)


def written(value: float, limit: float, digits: int = 3) -> str:
    """A score with as many decimals as the largest one, `limit`, needs for `digits` digits."""
    decimals = max(0, digits - 1 - math.floor(math.log10(limit)))
    if decimals <= digits + 3:
        return f"{value:+.{decimals}f}"
    return f"{value:+.{digits - 1}e}" if value else "0"


def speaks_against(values: Sequence[float]) -> bool:
    """Whether a side has scores below zero: where none has, its bar has one colour."""
    return any(value < 0 for value in values)


def meaning_of_agreement(comparison: Comparison) -> str:
    """What the agreement is taken with, and over what."""
    by_name: dict[str, list[str]] = {}
    for row, what in ((comparison.first("image"), "patches"), (comparison.first("text"), "words")):
        if row is not None:
            by_name.setdefault(row.method, []).append(what)
    over = ", and ".join(f"with {name} over {' and over '.join(what)}" for name, what in by_name.items())
    return f"Agreement is Spearman's rank correlation {over}."


def how_to_read(comparison: Comparison) -> list[str]:
    """What the reader of a comparison should know, a sentence or two each."""
    images = [one.image for one in comparison.explanations if one.image is not None]
    texts = [one.text for one in comparison.explanations if one.text is not None]
    return [
        *(f"Explained for the {name}: {one[0].target}." for name, one in (("picture", images), ("text", texts)) if one),
        *(f"Note: {note}." for note in common_notes(comparison)),
        "Red speaks for the match, blue against it. Every row has scales of its own, with zero in their middle: "
        "methods do not measure in one unit.",
        meaning_of_agreement(comparison),
        *(["The frame is the part of the picture that the model saw."] if any(map(outlined, images)) else []),
    ]


def notes_of(one: Explanation) -> list[str]:
    """What both sides say of themselves, each thing once."""
    return list(dict.fromkeys(note for side in (one.image, one.text) if side is not None for note in side.notes))


def common_notes(comparison: Comparison) -> list[str]:
    """Notes that every row has, such as that the text was cut: they are told once for all."""
    first, *others = map(notes_of, comparison.explanations)
    return [note for note in first if all(note in other for other in others)]
