"""The HTML page of a comparison: self-contained, a row for each method."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.drawing.compared import picture_of, thumbnail
from isthmus.drawing.compared_words import (
    agreement,
    common_notes,
    facts_of,
    figures_of,
    how_to_read,
    in_units,
    notes_of,
    seconds,
    speaks_against,
    written,
)
from isthmus.drawing.heatmap import calmed, layer
from isthmus.drawing.page import controls, details, style, whole_page
from isthmus.drawing.pieces import cells, fit, jpeg, png, words
from isthmus.drawing.scale import Scale, region_scale, word_scale
from isthmus.explanation import Array, Explanation, ImageAttribution, TextAttribution

if TYPE_CHECKING:
    from isthmus.comparison import CompareRow, Comparison

_PICTURE, _LAYER = 560, 224  # pixels of the longer side; the browser scales a heat map smoothly
_TALLEST = 260  # of a picture on the page


def page(comparison: Comparison) -> str:
    """A whole HTML page."""
    one = comparison.explanations[0]
    return whole_page(fragment(comparison), escape(f"Isthmus: {one.caption or one.source or 'comparison of methods'}"))


def fragment(comparison: Comparison) -> str:
    """The same for a notebook: one element, its style bound to it."""
    one, picture = comparison.explanations[0], picture_of(comparison)
    small = None if picture is None else thumbnail(picture, _PICTURE)
    base = None if small is None else jpeg(calmed(small))
    rows = "\n".join(_row(comparison, row, small, base) for row in comparison.rows)
    heading = escape(one.caption or one.source or "Comparison of methods")
    return (
        f"<div class='isthmus'>{style()}<h1 dir='auto'>{heading}</h1><div class='methods'>{_lead(comparison, small)}"
        f"<ol>\n{rows}\n</ol></div>{_table(comparison)}</div>"
    )


def _lead(comparison: Comparison, picture: Array | None) -> str:
    """What all rows share, the picture as it is, and how to read the rows."""
    one = comparison.explanations[0]
    name = escape(f"The picture {one.source!r}" if one.source else "The picture", quote=True)
    seen = ""
    if picture is not None:
        seen = f"<div class='seen'>{_frame(picture)}<img src='{jpeg(picture)}' alt='{name}'></div></div>"
    notes = "".join(f"<p dir='auto'>{escape(note)}</p>" for note in how_to_read(comparison))
    shown = controls(comparison.explanations)
    bar = f"<div class='bar'>{shown}</div>" if shown else ""
    return (
        f"<div class='method lead'><div class='told'>{_listed(facts_of(one))}</div>{seen}"
        f"<div class='said'>{notes}{bar}</div></div>"
    )


def _frame(picture: Array, attributes: str = "") -> str:
    """The opening tag of a picture's frame: as wide as its column, but for a tall picture."""
    height, width = picture.shape[:2]
    return f"<div class='frame' style='max-width:{round(_TALLEST * width / height)}px'{attributes}>"


def _listed(facts: Sequence[tuple[str, str]]) -> str:
    pairs = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in facts)
    return f"<dl>{pairs}</dl>" if pairs else ""


def _row(comparison: Comparison, row: CompareRow, picture: Array | None, base: str | None) -> str:
    name, figures = escape(row.method), _listed(figures_of(comparison, row))
    told = f"<div class='told'><h2>{name}</h2><p class='small'>{escape(row.title)}</p>{figures}</div>"
    one = row.explanation
    if one is None:
        body = f"<p class='absent refused'>{escape(row.reason or '')}</p>"
        return f"<li class='method'>{told}{body}</li>"
    seen = _map(one, row, picture, base) if one.image is not None and picture is not None and base else None
    if seen is None and picture is not None:
        seen = "<p class='absent'>It does not explain the picture.</p>"
    said = "" if one.text is None else _words(one.text, in_units(word_scale([one]), row))
    if one.text is None and comparison.first("text") is not None:
        said = "<p class='absent'>It does not explain the text.</p>"
    notes = [note for note in notes_of(one) if note not in common_notes(comparison)]
    said += "".join(f"<p class='note'>{escape(note)}</p>" for note in notes) + details(one)
    seen = "" if seen is None else f"<div class='seen'>{seen}</div>"
    return f"<li class='method'>{told}{seen}<div class='said'>{said}</div></li>"


def _map(one: Explanation, row: CompareRow, picture: Array, base: str) -> str:
    assert one.image is not None
    image, scale = one.image, in_units(region_scale([one]), row)
    values = image.scores.ravel().tolist()
    size = fit((picture.shape[1], picture.shape[0]), _LAYER)
    signs = (("for", 1), ("against", -1)) if speaks_against(values) else (("for", 1),)
    layers = "".join(
        f"<img class='{kind}' src='{png(layer(image, size, scale, sign=sign))}' alt=''>" for kind, sign in signs
    )
    label = escape(f"{row.method}: {_map_in_words(image, scale)}", quote=True)

    def value(score: float) -> str:
        return written(score, scale.limit, 4)

    return (
        _frame(picture, f" role='img' aria-label='{label}'")
        + f"<img src='{base}' alt=''>{layers}{cells(image, value)}</div>{_legend(scale, values)}"
    )


def _map_in_words(image: ImageAttribution, scale: Scale) -> str:
    """A text alternative: where the strongest regions lie."""
    rows, columns = image.scores.shape

    def place(index: Any) -> str:
        row, column = np.unravel_index(int(index), image.scores.shape)
        return f"row {row + 1}, column {column + 1} ({written(float(image.scores[row, column]), scale.limit, 4)})"

    said = f"heat map of {rows} by {columns} regions; highest: {place(image.scores.argmax())}"
    return f"{said}; lowest: {place(image.scores.argmin())}"


def _words(text: TextAttribution, scale: Scale) -> str:
    """The text with its words in colour, and their scale."""

    def value(score: float) -> str:
        return written(score, scale.limit, 4)

    return words(text, scale, value) + _legend(scale, [word.score for word in text.words])


def _legend(scale: Scale, values: Sequence[float]) -> str:
    """The scale of one side of a row; half of it where nothing speaks against."""
    if not any(values):
        return "<p class='legend'>zero everywhere</p>"
    both = speaks_against(values)
    stops = ", ".join(scale.ramp(33)[0 if both else 16 :])
    return (
        f"<p class='legend'><span>{f'{-scale.limit:.3g}' if both else '0'}</span>"
        f"<span class='ramp' style='background:linear-gradient(90deg, {stops})'></span>"
        f"<span>{scale.limit:+.3g} <small>{escape(scale.unit)}</small></span></p>"
    )


def _table(comparison: Comparison) -> str:
    """Every row's figures at one glance."""
    names = ("method", "time", "forward", "backward", "agreement, image", "agreement, text")
    head = "".join(f"<th scope='col'>{name}</th>" for name in names)
    body = []
    for row in comparison.rows:
        agreed = dict(agreement(comparison, row))
        cells = [
            "refused" if row.seconds is None else seconds(row.seconds),
            *("" if passes is None else f"{passes:g}" for passes in (row.forward, row.backward)),
            *(agreed.get(side, "") for side in ("image", "text")),
        ]
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body.append(f"<tr><th scope='row'>{escape(row.method)}</th>{values}</tr>")
    return (
        "<details><summary>All figures in one table</summary><div class='wide'><table class='listing'>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div></details>"
    )
