"""The figure of a comparison: a row for each method, with its cost, its heat map and its words."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isthmus.drawing.compared_words import facts_of, figures_of, how_to_read, in_units, speaks_against, written
from isthmus.drawing.figure import _axes, _outline, _settings, _write
from isthmus.drawing.heatmap import outlined, overlay
from isthmus.drawing.scale import Scale, ink, region_scale, word_scale
from isthmus.drawing.words import Line, wrapped
from isthmus.explanation import Array, Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from isthmus.comparison import CompareRow, Comparison

_MARGIN, _GAP, _BETWEEN = 0.35, 0.35, 0.36  # inches: around all, between columns, between rows
_TOLD, _MAP, _SAID = 2.75, 2.5, 4.3  # the columns: what is told of a method, its map, its words
_TALLEST = 2.3
_LINE, _FACT, _BAR, _RAMP = 0.44, 0.2, 0.34, 0.55
_PIXELS = 640  # of a map's longer side
_SOFT, _RULE, _GREY = "#5c5c66", "#dcdce2", 205
_LABEL = 0.82  # where values stand beside their labels


def figure(comparison: Comparison) -> Figure:
    """A matplotlib Figure: the picture, then a row for each method on scales of its own."""
    with _settings():
        return _drawn(comparison)


def to_png(comparison: Comparison, *, dpi: int = 130) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    with _settings():
        _drawn(comparison).savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def to_svg(comparison: Comparison) -> bytes:
    """The figure as SVG bytes, the same bytes for the same comparison; text stays text."""
    buffer = io.BytesIO()
    with _settings():
        _drawn(comparison).savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def picture_of(comparison: Comparison) -> Array | None:
    """The picture; a grey field where only its side is at hand, None where neither is."""
    for one in comparison.explanations:
        if one.picture is not None:
            return one.picture
    sides = [one.image for one in comparison.explanations if one.image is not None]
    return np.full((*sides[0].input_size, 3), _GREY, dtype=np.uint8) if sides else None


def thumbnail(picture: Array, longest: int) -> Array:
    """A copy of at most `longest` pixels a side."""
    from PIL import Image

    height, width = picture.shape[:2]
    factor = min(1.0, longest / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


@dataclass(frozen=True, eq=False)
class _Sheet:
    """The figure being drawn, its columns, and the picture that every map lies on."""

    fig: Figure
    comparison: Comparison
    picture: Array | None

    @property
    def lefts(self) -> tuple[float, float, float]:
        map_left = _MARGIN + _TOLD + _GAP
        return _MARGIN, map_left, map_left + (_MAP + _GAP if self.picture is not None else 0.0)

    @property
    def map_size(self) -> tuple[float, float]:
        """Width and height of a map in inches."""
        if self.picture is None:
            return 0.0, 0.0
        height = min(_TALLEST, _MAP * self.picture.shape[0] / self.picture.shape[1])
        return min(_MAP, height * self.picture.shape[1] / self.picture.shape[0]), height

    @property
    def width(self) -> float:
        return self.lefts[2] + _SAID + _MARGIN


def _drawn(comparison: Comparison) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(1, 1), dpi=100, facecolor="white")
    FigureCanvasAgg(fig)
    picture = picture_of(comparison)
    sheet = _Sheet(fig, comparison, None if picture is None else thumbnail(picture, _PIXELS))
    lines = [_lines(row, fig) for row in comparison.rows]
    heights = [_height(sheet, row, its) for row, its in zip(comparison.rows, lines, strict=True)]
    title = textwrap.wrap(
        _heading(comparison), int(8.2 * (sheet.width - 2 * _MARGIN)), max_lines=3, placeholder=" …"
    ) or [""]
    notes = [textwrap.wrap(note, 66, max_lines=4, placeholder=" …") for note in how_to_read(comparison)]
    top = max(sheet.map_size[1], _FACT * 5, sum(0.17 * len(note) + 0.08 for note in notes))
    height = 2 * _MARGIN + 0.3 * len(title) + 0.1 + top + sum(heights) + _BETWEEN * len(heights)
    fig.set_size_inches(sheet.width, height)
    y = height - _MARGIN
    for line in title:
        _write(fig, _MARGIN, y - 0.12, line, size=14, weight="bold")
        y -= 0.3
    _top(sheet, y - 0.1, notes)
    y -= 0.1 + top
    for row, its, tall in zip(comparison.rows, lines, heights, strict=True):
        _rule(fig, y - _BETWEEN / 2)
        y -= _BETWEEN
        _method(sheet, y, row, its)
        y -= tall
    return fig


def _heading(comparison: Comparison) -> str:
    one = comparison.explanations[0]
    return one.caption or one.source or "Comparison of methods"


def _lines(row: CompareRow, fig: Figure) -> list[Line]:
    one = row.explanation
    return [] if one is None or one.text is None else wrapped(one.text, fig, _SAID)


def _height(sheet: _Sheet, row: CompareRow, lines: Sequence[Line]) -> float:
    told = 0.3 + 0.15 * len(_wrapped_title(row)) + _FACT * len(figures_of(sheet.comparison, row))
    if row.explanation is None:
        return max(told, 0.18 * len(_reason(row)))
    shown = sheet.map_size[1] + _BAR if row.explanation.image is not None else 0.0
    return max(told, shown, _LINE * len(lines) + _BAR)


def _wrapped_title(row: CompareRow) -> list[str]:
    return textwrap.wrap(row.title, 44, max_lines=2, placeholder=" …")


def _reason(row: CompareRow) -> list[str]:
    return textwrap.wrap(row.reason or "", 84, max_lines=6, placeholder=" …")


def _top(sheet: _Sheet, top: float, notes: Sequence[Sequence[str]]) -> None:
    """The picture as it is, beside it what was asked, and how to read what follows."""
    _facts(sheet.fig, top - 0.1, facts_of(sheet.comparison.explanations[0]))
    if sheet.picture is not None:
        _imshow(sheet, top, sheet.picture, None)
    y = top - 0.1
    for note in notes:
        for line in note:
            _write(sheet.fig, sheet.lefts[2], y, line, size=8.5, color=_SOFT)
            y -= 0.17
        y -= 0.08


def _facts(fig: Figure, y: float, facts: Sequence[tuple[str, str]]) -> None:
    for label, value in facts:
        _write(fig, _MARGIN, y, label, size=8.5, color=_SOFT)
        _write(fig, _MARGIN + _LABEL, y, _cut(value, 34), size=8.5, color="#1b1b1f")
        y -= _FACT


def _method(sheet: _Sheet, top: float, row: CompareRow, lines: Sequence[Line]) -> None:
    fig, (_, map_left, said_left) = sheet.fig, sheet.lefts
    _write(fig, _MARGIN, top - 0.1, _cut(row.method, 30), size=12 if len(row.method) < 24 else 9.5, weight="bold")
    y = top - 0.3
    for line in _wrapped_title(row):
        _write(fig, _MARGIN, y, line, size=8, color=_SOFT)
        y -= 0.15
    _facts(fig, y - 0.1, figures_of(sheet.comparison, row))
    one = row.explanation
    if one is None:
        for i, line in enumerate(_reason(row)):
            _write(fig, map_left, top - 0.1 - 0.18 * i, line, size=9, color=_SOFT)
        return
    if one.image is not None:
        _map(sheet, top, row, one)
    elif sheet.picture is not None:
        _write(fig, map_left, top - 0.1, "It does not explain the picture.", size=8.5, color=_SOFT)
    if one.text is not None:
        _words(sheet, top, row, one, lines)
    elif sheet.comparison.first("text") is not None:
        _write(fig, said_left, top - 0.1, "It does not explain the text.", size=8.5, color=_SOFT)


def _map(sheet: _Sheet, top: float, row: CompareRow, one: Explanation) -> None:
    assert one.image is not None
    assert sheet.picture is not None
    scale = in_units(region_scale([one]), row)
    _imshow(sheet, top, overlay(sheet.picture, one.image, scale), one)
    values = one.image.scores.ravel().tolist()
    _bar(sheet.fig, sheet.lefts[1], top - sheet.map_size[1] - 0.2, scale, values)


def _imshow(sheet: _Sheet, top: float, shown: Array, one: Explanation | None) -> None:
    width, height = sheet.map_size
    ax = _axes(sheet.fig, sheet.lefts[1], top - height, width, height)
    ax.imshow(shown, aspect="auto", interpolation="antialiased")
    ax.set_axis_off()
    if one is not None and one.image is not None and outlined(one.image):
        _outline(ax, one, shown)


def _words(sheet: _Sheet, top: float, row: CompareRow, one: Explanation, lines: Sequence[Line]) -> None:
    assert one.text is not None
    scale, left = in_units(word_scale([one]), row), sheet.lefts[2]
    for line in lines:
        for x, word in line:
            colour = scale.colour(word.score)
            _write(sheet.fig, left + x, top - 0.13, word.text, size=11, color=ink(colour), box=colour)
            label = written(word.score, scale.limit, 3 if scale.limit >= 0.01 else 2)
            _write(sheet.fig, left + x, top - 0.32, label, size=6.5 if len(label) < 8 else 6, color=_SOFT)
        top -= _LINE
    _bar(sheet.fig, left, top - 0.16, scale, [word.score for word in one.text.words])


def _bar(fig: Figure, left: float, middle: float, scale: Scale, values: Sequence[float]) -> None:
    """The scale of one side of a row, with its unit; half of it where nothing speaks against."""
    from matplotlib.colors import to_rgb

    if not any(values):
        _write(fig, left, middle, "zero everywhere", size=7.5, color=_SOFT)
        return
    both = speaks_against(values)
    colours = scale.ramp()[0 if both else 128 :]
    low = f"{-scale.limit:.3g}" if both else "0"
    _write(fig, left, middle, low, size=7.5, color=_SOFT)
    start = left + 0.062 * len(low) + 0.06
    ax = _axes(fig, start, middle - 0.045, _RAMP, 0.09)
    ax.imshow([[to_rgb(colour) for colour in colours]], aspect="auto")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(edgecolor="#cccccc", linewidth=0.4)
    _write(fig, start + _RAMP + 0.07, middle, f"{scale.limit:+.3g}  {scale.unit}", size=7.5, color=_SOFT)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _rule(fig: Figure, y: float) -> None:
    from matplotlib.lines import Line2D

    width, height = fig.get_size_inches()
    across = [_MARGIN / width, 1 - _MARGIN / width]
    fig.add_artist(Line2D(across, [y / height] * 2, color=_RULE, linewidth=0.8))
