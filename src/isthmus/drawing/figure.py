"""The figure: pictures with their heat maps, words in colour, and the bars of both scales."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.drawing.heatmap import outlined, overlay, scaled_crop
from isthmus.drawing.scale import Scale, ink, region_scale, word_scale
from isthmus.drawing.words import Line, specials, wrapped
from isthmus.explanation import Array, Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL = 4.2  # inches, the width of a panel
_TALLEST = 4.8
_GAP, _MARGIN, _TITLE, _BARS = 0.3, 0.25, 0.34, 0.75
_LINE = 0.44  # a line of words with the scores below them
_GREY = 205


def figure(explanations: Explanation | Sequence[Explanation]) -> Figure:
    """A matplotlib Figure: the picture, then a panel for each explanation, all on one scale.

    Args:
        explanations: one, or several; those of one picture show it once.
    """
    with _settings():
        return _drawn([explanations] if isinstance(explanations, Explanation) else list(explanations))


def _drawn(many: Sequence[Explanation]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    regions, words = region_scale(many), word_scale(many)
    cells = _cells(many)
    columns = 2 if len(cells) == 4 else min(3, len(cells))
    fig = Figure(figsize=(1, 1), dpi=100, facecolor="white")
    FigureCanvasAgg(fig)
    lines = [wrapped(one.text, fig, _CELL) if one is not None and one.text is not None else [] for one, _ in cells]
    grid = [range(i, min(i + columns, len(cells))) for i in range(0, len(cells), columns)]
    tall = [[_height(cells[i][1]) for i in row] for row in grid]
    rows = [max(tall[r]) + _TITLE + max(_under(cells[i][0], lines[i]) for i in row) for r, row in enumerate(grid)]
    width = 2 * _MARGIN + columns * _CELL + (columns - 1) * _GAP
    height = 2 * _MARGIN + sum(rows) + _GAP * (len(rows) - 1) + _BARS
    fig.set_size_inches(width, height)
    top = height - _MARGIN
    for r, row in enumerate(grid):
        for c, i in enumerate(row):
            left = _MARGIN + c * (_CELL + _GAP)
            _panel(fig, left, top, max(tall[r]), cells[i], lines[i], regions, words)
        top -= rows[r] + _GAP
    _bars(fig, [scale for scale, used in ((regions, _any(many, "image")), (words, _any(many, "text"))) if used])
    return fig


def _any(many: Sequence[Explanation], side: str) -> bool:
    return any(getattr(one, side) is not None for one in many)


def _cells(many: Sequence[Explanation]) -> list[tuple[Explanation | None, Array | None]]:
    """Panels: a picture as it is before the first explanation of it, then that explanation's."""
    cells: list[tuple[Explanation | None, Array | None]] = []
    last: Array | None = None
    for one in many:
        picture = one.picture
        if picture is None and one.image is not None:
            h, w = one.image.input_size
            picture = np.full((h, w, 3), _GREY, dtype=np.uint8)
        if one.picture is not None and not (last is not None and np.array_equal(last, one.picture)):
            cells.append((None, one.picture))
            last = one.picture
        if one.image is not None or one.text is not None:
            cells.append((one, picture))
    return cells


def _height(picture: Array | None) -> float:
    return 0.0 if picture is None else float(min(_TALLEST, _CELL * picture.shape[0] / picture.shape[1]))


def _under(one: Explanation | None, lines: Sequence[Line]) -> float:
    return 0.0 if one is None else _LINE * len(lines) + 0.2 + 0.15 * len(small_print(one))


def _panel(
    fig: Figure,
    left: float,
    top: float,
    tall: float,
    cell: tuple[Explanation | None, Array | None],
    lines: Sequence[Line],
    regions: Scale,
    words: Scale,
) -> None:
    one, picture = cell
    _write(fig, left, top - 0.2, _title(one), size=11, weight="bold")
    top -= _TITLE
    if picture is not None:
        shown = overlay(picture, one.image, regions) if one is not None and one.image is not None else picture
        h = _height(picture)
        w = min(_CELL, h * picture.shape[1] / picture.shape[0])
        ax = _axes(fig, left, top - h, w, h)
        ax.imshow(shown, aspect="auto", interpolation="antialiased")
        ax.set_axis_off()
        if one is not None and one.image is not None and outlined(one.image):
            _outline(ax, one, picture)
    if one is None:
        return
    top -= tall + 0.1
    for line in lines:
        for x, word in line:
            colour = words.colour(word.score)
            _write(fig, left + x, top - 0.15, word.text, size=11, color=ink(colour), box=colour)
            _write(fig, left + x, top - 0.34, f"{word.score:+.3f}", size=6.5, color="#444444")
        top -= _LINE
    for i, note in enumerate(small_print(one)):
        _write(fig, left, top - 0.12 - 0.15 * i, note, size=7.5, color="#444444")


def _title(one: Explanation | None) -> str:
    if one is None:
        return "Picture"
    return "   ".join(f"{name} {value}" for name, value in figures_of(one)) or "Explanation"


def figures_of(one: Explanation) -> list[tuple[str, str]]:
    """Names and numbers of what is explained; of a contrast that is a difference, not the similarity of the pair."""
    found, sides = [], [side for side in (one.image, one.text) if side is not None]
    if one.provenance.settings.get("against") and len(sides) == 1:
        found.append(("difference of similarities", f"{sides[0].completeness.open:+.3f}"))
    elif one.similarity is not None:
        found.append(("similarity", f"{one.similarity:.3f}"))
    if one.probability is not None:
        found.append(("probability", f"{one.probability:.1%}"))
    return found


def small_print(one: Explanation) -> list[str]:
    """What is explained where no words tell it, and per side: special positions and the convergence delta."""
    notes = []
    if one.text is None and one.image is not None:
        notes.append(textwrap.shorten(one.image.target, 90))
    for name, side in (("image", one.image), ("text", one.text)):
        if side is None:
            continue
        parts = [f"{name} {score:+.3f}" for name, score in specials(side)[:3]]
        delta = side.completeness.relative_delta
        if delta is not None:
            parts.append(f"delta {delta:.2%}")
        notes.append(textwrap.shorten(f"{name}: " + ", ".join(parts), 90))
    return notes


def _outline(ax: Axes, one: Explanation, picture: Array) -> None:
    from matplotlib.patches import Rectangle

    assert one.image is not None
    crop = scaled_crop(one.image, (picture.shape[1], picture.shape[0]))
    left, top = max(crop.left, 0) - 0.5, max(crop.top, 0) - 0.5
    right, bottom = min(crop.right, picture.shape[1]) - 0.5, min(crop.bottom, picture.shape[0]) - 0.5
    for colour, thick in (("white", 2.2), ("black", 0.9)):
        ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=thick))


def _axes(fig: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    w, h = fig.get_size_inches()
    return fig.add_axes((left / w, bottom / h, width / w, height / h))


def _write(fig: Figure, left: float, middle: float, text: str, *, box: str | None = None, **style: Any) -> None:
    """Text at inches from the left and bottom; `$` and `_` in it are themselves."""
    w, h = fig.get_size_inches()
    patch = None if box is None else {"facecolor": box, "edgecolor": "#cccccc", "linewidth": 0.4, "pad": 2.2}
    fig.text(left / w, middle / h, text, va="center", ha="left", parse_math=False, bbox=patch, **style)


def _bars(fig: Figure, scales: Sequence[Scale]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    width = fig.get_size_inches()[0]
    each = min(3.2, (width - 2 * _MARGIN - _GAP) / 2)
    for i, scale in enumerate(scales):
        ax = _axes(fig, _MARGIN + 0.25 + i * (each + _GAP + 0.3), _MARGIN + 0.38, each - 0.4, 0.11)
        mappable = ScalarMappable(Normalize(-scale.limit, scale.limit), ListedColormap(scale.ramp()))
        bar = fig.colorbar(mappable, cax=ax, orientation="horizontal", ticks=[-scale.limit, 0, scale.limit])
        bar.set_ticklabels([f"{-scale.limit:.3g}", "0", f"+{scale.limit:.3g}"])
        bar.ax.tick_params(labelsize=7.5, length=2)
        bar.set_label(f"against   ←   {scale.unit}   →   for", fontsize=8)


def to_png(explanations: Explanation | Sequence[Explanation], *, dpi: int = 130) -> bytes:
    """The figure as PNG bytes."""
    quick = {"compress_level": 4}
    return _rendered(explanations, "png", dpi=dpi, metadata={"Software": None}, pil_kwargs=quick)


def to_svg(explanations: Explanation | Sequence[Explanation]) -> bytes:
    """The figure as SVG bytes, the same bytes for the same explanations; text stays text."""
    return _rendered(explanations, "svg", metadata={"Date": None, "Creator": None})


def _rendered(explanations: Explanation | Sequence[Explanation], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with _settings():
        figure(explanations).savefig(buffer, format=kind, **options)
    return buffer.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    """Fonts that a system may have for other scripts, and no advice about glyphs that none of them has."""
    import logging

    import matplotlib
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    wanted = (
        "DejaVu Sans",
        "Noto Sans",
        "Noto Sans CJK SC",
        "Noto Sans Arabic",
        "Noto Emoji",
        "Arial Unicode MS",
    )
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with (
            warnings.catch_warnings(),
            matplotlib.rc_context(
                {
                    "font.family": [name for name in wanted if name in there] or ["sans-serif"],
                    "svg.hashsalt": "isthmus",
                    "svg.fonttype": "none",
                }
            ),
        ):
            warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
            yield
    finally:
        logger.setLevel(level)
