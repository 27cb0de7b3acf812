"""The HTML page: self-contained, without a script file, a font or a picture from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from isthmus.drawing.figure import figures_of, small_print
from isthmus.drawing.heatmap import calmed, layer
from isthmus.drawing.pieces import cells, fit, jpeg, png
from isthmus.drawing.pieces import words as coloured
from isthmus.drawing.scale import Scale, region_scale, word_scale
from isthmus.drawing.words import specials
from isthmus.explanation import Completeness, Explanation, ImageAttribution

_LAYER_LIMIT = 512  # pixels of the heat map's longer side; the browser scales it smoothly


def page(explanations: Explanation | Sequence[Explanation], title: str = "") -> str:
    """A whole HTML page of one or more explanations, all on one scale."""
    many = _listed(explanations)
    name = escape(title or (many[0].caption if len(many) == 1 else "") or "Isthmus")
    return whole_page(fragment(many, heading=name), name)


def whole_page(body: str, title: str) -> str:
    """A document around a body; both are HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title></head>\n<body class='isthmus-page'>\n{body}\n</body></html>\n"
    )


def style() -> str:
    """The style element of everything inside `class='isthmus'`."""
    return f"<style>{files('isthmus.drawing').joinpath('page.css').read_text(encoding='utf-8')}</style>"


def fragment(explanations: Explanation | Sequence[Explanation], *, heading: str = "") -> str:
    """The same for a notebook: one element, its style bound to it. `heading` is HTML."""
    many = _listed(explanations)
    regions, words = region_scale(many), word_scale(many)
    cards = "\n".join(_card(one, regions, words, i) for i, one in enumerate(many))
    used = [s for s, side in ((regions, "image"), (words, "text")) if any(getattr(o, side) for o in many)]
    return (
        f"<div class='isthmus'>{style()}"
        + (f"<h1>{heading}</h1>" if heading else "")
        + f"<div class='bar'>{''.join(map(_legend, used))}{controls(many)}</div>"
        + f"<div class='cards'>\n{cards}\n</div></div>"
    )


def _listed(explanations: Explanation | Sequence[Explanation]) -> list[Explanation]:
    return [explanations] if isinstance(explanations, Explanation) else list(explanations)


def controls(many: Sequence[Explanation]) -> str:
    """What changes how maps are shown; nothing where there is none."""
    if not any(one.image is not None for one in many):
        return ""
    change = "this.closest('.isthmus').style.setProperty('{}', {})"
    return (
        "<span class='controls'><label>Map <input type='range' min='0' max='1' step='0.05' value='1' "
        f'oninput="{change.format("--map", "this.value")}"></label>'
        "<label><input type='checkbox' "
        f'onchange="{change.format("--against", "this.checked ? 0 : 1")}"> only what speaks for</label></span>'
    )


def _legend(scale: Scale) -> str:
    stops = ", ".join(scale.ramp(17))
    return (
        f"<span class='legend'><span>against {-scale.limit:.3g}</span>"
        f"<span class='ramp' style='background:linear-gradient(90deg, {stops})'></span>"
        f"<span>+{scale.limit:.3g} for <small>({escape(scale.unit)})</small></span></span>"
    )


def _card(one: Explanation, regions: Scale, words: Scale, number: int) -> str:
    parts = [f"<article class='card' aria-label='Explanation {number + 1}'>", _figures(one)]
    if one.picture is not None or one.image is not None:
        parts.append(_pictures(one, regions))
    if one.text is not None:
        parts.append(coloured(one.text, words, _word))
    elif one.caption:
        parts.append(f"<p class='words' dir='auto'>{escape(one.caption)}</p>")
    parts += [f"<p class='small'>{escape(line)}</p>" for line in small_print(one)]
    for side in (one.image, one.text):
        parts += [f"<p class='note'>{escape(note)}</p>" for note in (side.notes if side is not None else ())]
    return "\n".join([*parts, details(one), "</article>"])


def _figures(one: Explanation) -> str:
    shown = [f"{name} <b>{value}</b>" for name, value in figures_of(one)]
    return f"<p class='figures'>{' · '.join(shown)}</p>"


def _pictures(one: Explanation, scale: Scale) -> str:
    picture = one.picture
    if picture is None:
        assert one.image is not None
        picture = np.full((*one.image.input_size, 3), 205, dtype=np.uint8)
    name = f"The picture {one.source!r}" if one.source else "The picture"
    plain = f"<div class='frame'><img src='{jpeg(picture)}' alt='{escape(name, quote=True)}'></div>"
    if one.image is None:
        return f"<div class='pictures'>{plain}</div>"
    small = fit((picture.shape[1], picture.shape[0]), _LAYER_LIMIT)
    maps = "".join(
        f"<img class='{kind}' src='{png(layer(one.image, small, scale, sign=sign))}' alt=''>"
        for kind, sign in (("for", 1), ("against", -1))
    )
    alt = escape(_map_in_words(one.image), quote=True)
    return (
        f"<div class='pictures'>{plain}<div class='frame' role='img' aria-label='{alt}'>"
        f"<img src='{jpeg(calmed(picture))}' alt=''>{maps}{cells(one.image, _region)}</div></div>"
    )


def _map_in_words(image: ImageAttribution) -> str:
    """A text alternative: where the strongest regions lie."""

    def place(index: Any) -> str:
        row, column = np.unravel_index(int(index), image.scores.shape)
        return f"row {row + 1}, column {column + 1} ({image.scores[row, column]:+.4f})"

    rows, columns = image.scores.shape
    return (
        f"Heat map of {rows} by {columns} regions; most for: {place(image.scores.argmax())}; "
        f"most against: {place(image.scores.argmin())}"
    )


def _region(score: float) -> str:
    return f"{score:+.5f}"


def _word(score: float) -> str:
    return f"{score:+.4f}"


def details(one: Explanation) -> str:
    """Where an explanation comes from, folded away."""
    rows = []
    for name, side in (("image", one.image), ("text", one.text)):
        if side is None:
            continue
        special = ", ".join(f"{name} {score:+.4f}" for name, score in specials(side))
        options = ", ".join(f"{k} {v}" for k, v in side.options.items())
        rows += [
            (f"{name}: explained", side.target),
            (f"{name}: score", _completeness(side.completeness)),
            (f"{name}: other positions", special),
            (f"{name}: options", options),
        ]
    p = one.provenance
    rows += [
        ("model", f"{p.model} ({p.revision}), {p.dtype} on {p.device}"),
        ("method", p.method + (f", preset {p.preset}" if p.preset else "")),
        ("cost", f"{p.seconds:.3f} s, " + ", ".join(f"{v:g} {k}" for k, v in p.passes.items()) + " passes"),
        ("versions", _pairs(p.versions)),
    ]
    body = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in rows if v)
    return f"<details><summary>Where this comes from</summary><table>{body}</table></details>"


def _pairs(mapping: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in mapping.items())


def _completeness(found: Completeness) -> str:
    if found.closed is None or found.delta is None:
        return f"{found.open:.4f}"
    return (
        f"{found.open:.4f} open, {found.closed:.4f} closed; all positions sum to {found.total:.4f}, "
        f"a delta of {found.delta:+.1e} ({found.relative_delta:.2%})"
    )
