"""Lines of words for the figure, measured with the fonts that draw them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from isthmus.explanation import ImageAttribution, TextAttribution, Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = list[tuple[float, Word]]  # inches from the left, word

_SPACE, _PAD = 0.09, 0.05


def specials(side: ImageAttribution | TextAttribution) -> list[tuple[str, float]]:
    """Special positions with their scores; those of one name, such as the padding that SigLIP reads, as their sum."""
    scores: dict[str, list[float]] = {}
    for one in side.special:
        scores.setdefault(one.name, []).append(one.score)
    return [(name if len(own) == 1 else f"{name} ×{len(own)}", sum(own)) for name, own in scores.items()]


def wrapped(text: TextAttribution, fig: Figure, width: float) -> list[Line]:
    """Break a text into lines of at most `width` inches; a word that is wider still gets a line of its own, cut."""
    lines: list[list[tuple[float, float, Word]]] = [[]]
    x = 0.0
    for word in text.words:
        shown = Word(_shortened(word.text, fig, width), word.start, word.end, word.score, word.tokens)
        wide = max(_inches(shown.text, 11, fig), _inches(f"{word.score:+.3f}", 6.5, fig)) + _PAD
        if x and x + wide > width:
            lines.append([])
            x = 0.0
        lines[-1].append((x, wide, shown))
        x += wide + _SPACE
    return [_placed(line, rightwards=not _right_to_left(text.text)) for line in lines]


def _placed(line: Sequence[tuple[float, float, Word]], *, rightwards: bool) -> Line:
    """Words at their place; a script that is written from the right begins at the line's right end."""
    end = line[-1][0] + line[-1][1] if line else 0.0
    return [(x if rightwards else end - x - wide, word) for x, wide, word in line]


def _right_to_left(text: str) -> bool:
    """Whether the first letter that has a direction is written from right to left."""
    strong = (unicodedata.bidirectional(letter) for letter in text)
    return next((kind for kind in strong if kind in ("L", "R", "AL")), "L") != "L"


def _shortened(text: str, fig: Figure, width: float) -> str:
    while len(text) > 1 and _inches(text, 11, fig) > width - 0.1:
        text = text[: int(0.8 * len(text))].rstrip("…") + "…"
    return text


def _inches(text: str, size: float, fig: Figure) -> float:
    from matplotlib.text import Text

    item = Text(0, 0, text, size=size, parse_math=False, figure=fig)
    return float(item.get_window_extent(fig.canvas.get_renderer()).width / fig.dpi)  # type: ignore[attr-defined]
