"""The page of many results: a table with a link to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from isthmus.drawing.page import style, whole_page


@dataclass(frozen=True)
class Line:
    """One result: its name, the path of its files beside the page, without ending, and what it says."""

    name: str
    stem: str
    text: str
    similarity: float
    words: str


def listing(lines: Sequence[Line], title: str = "Isthmus") -> str:
    """A whole HTML page; it shows the figures beside it and links to their pages."""
    head = "".join(f"<th>{name}</th>" for name in ("result", "text", "similarity", "strongest words"))
    rows = "\n".join(map(_row, lines))
    body = (
        f"<div class='isthmus'>{style()}<h1>{escape(title)}</h1><p class='figures'>{len(lines)} results</p>"
        f"<table class='listing'><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>"
    )
    return whole_page(body, escape(title))


def _row(line: Line) -> str:
    place = quote(line.stem)
    return (
        f"<tr><td><a href='{place}.html'><img src='{place}.png' alt='' loading='lazy' width='220'><br>"
        f"{escape(line.name)}</a></td><td dir='auto'>{escape(line.text)}</td>"
        f"<td>{line.similarity:.3f}</td><td dir='auto'>{escape(line.words)}</td></tr>"
    )
