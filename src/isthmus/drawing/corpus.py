"""The page of a corpus: distributions, words, positions, and the pairs that stand out, for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from isthmus.drawing.charts import histogram, number, positions, tally
from isthmus.drawing.heatmap import calmed, layer
from isthmus.drawing.page import controls_of, legend, style, whole_page
from isthmus.drawing.pieces import fit, jpeg, png
from isthmus.drawing.pieces import words as coloured
from isthmus.drawing.scale import Scale, limit_of
from isthmus.explanation import Array, ImageAttribution, TextAttribution

_LAYER = 128  # pixels of a map's longer side; the browser scales it smoothly
_GRIDS = 3  # the commonest grids of patches


@dataclass(frozen=True, eq=False)
class Example:
    """A pair that stands out.

    Attributes:
        id, caption: its own.
        figure: why it stands out, in words.
        picture: `(height, width, 3)` uint8, None where it could not be opened again.
        image, text: the sides that were explained.
    """

    id: str
    caption: str
    figure: str
    picture: Array | None
    image: ImageAttribution | None
    text: TextAttribution | None


def corpus_page(told: Mapping[str, Any], examples: Mapping[str, Mapping[str, Sequence[Example]]], title: str) -> str:
    """A whole HTML page, self-contained.

    Args:
        told: see `isthmus.scale.summary.Summary`.
        examples: for each method, by the title of their kind, those that stand out.
        title: what the page is called.
    """
    sheet = files("isthmus.drawing").joinpath("corpus.css").read_text(encoding="utf-8")
    methods, alone = told["methods"], " class='spoken'"  # one method is named above already, but for a screen reader
    body = "\n".join(
        f"<h2{'' if len(methods) > 1 else alone}>{escape(name)}</h2>" + _method(found, examples[name])
        for name, found in methods.items()
    )
    return whole_page(
        f"<div class='isthmus'>{style()}<style>{sheet}</style><main class='corpus'><h1>{escape(title)}</h1>"
        f"{_facts(told)}{_failures(told['failures'])}\n{body}</main></div>",
        escape(title),
    )


def _facts(told: Mapping[str, Any]) -> str:
    settings = told["run"].get("settings") or {}
    rows = _sizes(told)
    if told["failures"]["count"]:
        rows.append((f"{told['failures']['count']:,}", "failed"))
    shown = [f"<span><b>{value}</b> {name}</span>" for value, name in rows]
    names = ", ".join(told["methods"])
    for name, value in (("model", settings.get("model")), ("method", names), ("run", told["run"].get("state"))):
        shown.append(f"<span>{name} <b>{escape(str(value))}</b></span>" if value else "")
    return f"<p class='facts'>{''.join(shown)}</p>"


def _sizes(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs, and rows where several methods have one for each; ids are not kept, so a method's rows count the pairs."""
    counts = {found["rows"] for found in told["methods"].values()}
    pairs = (f"{'' if len(counts) == 1 else 'at least '}{told['pairs']:,}", "pairs")
    return [pairs, (f"{told['rows']:,}", "rows")] if len(told["methods"]) > 1 else [pairs]


def _failures(told: Mapping[str, Any]) -> str:
    if not told["some"]:
        return ""
    rows = "".join(f"<tr><th>{escape(one['id'])}</th><td>{escape(one['reason'])}</td></tr>" for one in told["some"])
    more = f"; all {told['count']:,} are in errors.parquet" if told["count"] > len(told["some"]) else ""
    return f"<details><summary>What failed{more}</summary><table>{rows}</table></details>"


def _method(found: Mapping[str, Any], examples: Mapping[str, Sequence[Example]]) -> str:
    words = found["words"]
    charts = [
        ("Similarity", found["similarity"], "cosine of picture and text"),
        ("Delta of the picture", found["image_delta"], "share of the score's change that the map misses"),
        ("Delta of the text", found["text_delta"], "share of the score's change that the words miss"),
    ]
    parts = ["<section><div class='panels'>", *(histogram(*one) for one in charts if one[1]), "</div></section>"]
    if words["most"]:
        limit = max(abs(one["mean_score"]) for one in (*words["most"], *words["least"]))
        lists = [("Words that carry most", words["most"]), ("Words that carry least, or speak against", words["least"])]
        parts += [
            "<section><div class='panels'>",
            *(tally(name, rows, limit) for name, rows in lists if rows),
            f"</div><p class='said'>{_words_said(words)}</p></section>",
        ]
    if found["grids"]:
        parts += [f"<section>{positions(grid)}</section>" for grid in found["grids"][:_GRIDS]]
        rest = sum(grid["count"] for grid in found["grids"][_GRIDS:]) + found["other_grids"]
        parts.append(f"<p class='said'>{rest:,} pairs have grids of other shapes.</p>" if rest else "")
    shown = {name: many for name, many in examples.items() if many}
    if shown:
        parts += ["<section><h3>Pairs that stand out</h3>", f"<div class='bar'>{controls_of(_maps(shown))}</div>"]
        parts += [_kind(name, many) for name, many in shown.items()]
        parts.append("</section>")
    return "\n".join(parts)


def _words_said(words: Mapping[str, Any]) -> str:
    said = (
        f"Mean of a word's score over its {words['least_count']:,} or more occurrences; share: of the sizes of all "
        f"scores of its text. {words['occurrences']:,} occurrences, {words['often']:,} words that come often enough."
    )
    if words["forgotten"]:
        said += f" Rare words were forgotten on the way: a count may lack {words['missed_at_most']:,} at most."
    return said


def _maps(examples: Mapping[str, Sequence[Example]]) -> bool:
    return any(one.image is not None for many in examples.values() for one in many)


def _kind(name: str, many: Sequence[Example]) -> str:
    maps = [one.image.scores for one in many if one.image is not None]
    regions = Scale(limit_of(v for array in maps for v in array.ravel().tolist()), "score per patch", on_picture=True)
    words = Scale(limit_of(w.score for one in many if one.text is not None for w in one.text.words), "score per word")
    legends = (legend(regions) if maps else "") + legend(words)
    cards = "\n".join(_example(one, regions, words) for one in many)
    return (
        f"<div class='kind'><h3>{escape(name.capitalize())}</h3><span class='bar'>{legends}</span></div>"
        f"<div class='examples'>{cards}</div>"
    )


def _example(one: Example, regions: Scale, words: Scale) -> str:
    text = coloured(one.text, words, number) if one.text is not None else f"<p class='words'>{escape(one.caption)}</p>"
    return (
        f"<article class='example'>{_picture(one, regions)}{text}"
        f"<p><b>{escape(one.figure)}</b> · {escape(one.id)}</p></article>"
    )


def _picture(one: Example, scale: Scale) -> str:
    if one.picture is None and one.image is None:
        return ""
    gone = one.picture is None
    picture = one.picture
    if picture is None:
        assert one.image is not None
        width, height = fit(one.image.size, _LAYER)
        picture = np.full((height, width, 3), 205, dtype=np.uint8)
    maps = ""
    if one.image is not None:
        size = fit((picture.shape[1], picture.shape[0]), _LAYER)
        maps = "".join(
            f"<img class='{kind}' src='{png(layer(one.image, size, scale, sign=sign))}' alt=''>"
            for kind, sign in (("for", 1), ("against", -1))
        )
    name = escape(f"The map on the picture of {one.id!r}", quote=True)
    note = "<small>picture not found</small>" if gone else ""
    kind = "frame gone" if gone else "frame"
    base = f"<img src='{jpeg(calmed(picture))}' alt=''>"
    wide = min(1.0, picture.shape[1] / picture.shape[0])  # no taller than a square of the column's width
    return f"<div class='{kind}' role='img' aria-label='{name}' style='width:{wide:.1%}'>{base}{maps}{note}</div>"
