"""The figure of docs/two-objects.md: a dog and a fire hydrant, each against the other, by every method of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import isthmus
from isthmus.drawing.heatmap import overlay
from isthmus.drawing.scale import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "docs" / "images" / "two-objects.png"
DOG = 377575  # examples/dog.jpg is this picture of COCO
PAIR = ("dog", "fire hydrant")
SIDE, INNER, GAP, TITLE, BELOW = 1.36, 0.06, 0.3, 0.27, 0.17  # inches
MARGIN, HEAD, FOOT, COLUMNS, DPI = 0.2, 0.3, 0.72, 4, 100
GREY = "#444444"
WHOLE = Scale(1.0, "score over the method's largest", on_picture=True)

Array = npt.NDArray[Any]
Outlines = Sequence[Array]  # masks of the first and the second of PAIR in the crop


def write_figure(model: isthmus.DualEncoder, maps: Mapping[str, tuple[Array, Array]], outlines: Outlines) -> None:
    """Draw each method's map of `PAIR` and that of the reverse, `(rows, columns)`, on examples/dog.jpg."""
    import matplotlib

    panels = _panels(model, maps)
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}):
        buffer = BytesIO()
        _figure(panels, maps, outlines).savefig(buffer, format="png", dpi=DPI)
    with Image.open(buffer) as image:  # 256 colours are enough for it, and a quarter of the bytes
        few = image.convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(FIGURE, optimize=True)


def _panels(model: isthmus.DualEncoder, maps: Mapping[str, tuple[Array, Array]]) -> list[tuple[str, Sequence[Array]]]:
    """A title and two pictures of the crop a cell: the picture as it is first, then every method's two maps."""
    one: Any = isthmus.explain(model, ROOT / "examples" / "dog.jpg", "a dog", method="rollout", sides="image")
    crop = one.image.crop
    seen = slice(round(crop.top), round(crop.bottom)), slice(round(crop.left), round(crop.right))
    cells: list[tuple[str, Sequence[Array]]] = [("what is asked for", [one.picture[seen]] * 2)]
    for name, both in maps.items():
        largest = max(np.abs(scores).max() for scores in both) or 1.0
        layers = [replace(one.image, scores=scores / largest) for scores in both]
        cells.append((name, [overlay(one.picture, layer, WHOLE)[seen] for layer in layers]))
    return cells


def _figure(
    cells: Sequence[tuple[str, Sequence[Array]]], maps: Mapping[str, tuple[Array, Array]], outlines: Outlines
) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(cells) // COLUMNS)
    wide, tall = 2 * SIDE + INNER, TITLE + SIDE + BELOW
    width = 2 * MARGIN + COLUMNS * wide + (COLUMNS - 1) * GAP
    fig = Figure(figsize=(width, MARGIN + HEAD + rows * tall + FOOT), facecolor="white")
    FigureCanvasAgg(fig)
    top = fig.get_figheight() - MARGIN - HEAD
    for i, (name, pictures) in enumerate(cells):
        left, upper = MARGIN + i % COLUMNS * (wide + GAP), top - i // COLUMNS * tall
        _write(fig, left, upper - TITLE / 2, name, size=10, weight="bold" if name in maps else "normal")
        for side, picture in enumerate(pictures):
            x = left + side * (SIDE + INNER)
            ax = _axes(fig, x, upper - TITLE - SIDE, SIDE, SIDE)
            ax.imshow(picture, extent=(0, 1, 1, 0), interpolation="antialiased")
            ax.set_axis_off()
            _outline(ax, outlines[side])
            if name in maps:
                _dots(ax, maps[name][side])
            if i < COLUMNS:
                words = ("dog", "hydrant")
                _write(fig, x, top + 0.12, f"{words[side]} against {words[1 - side]}", size=8, color=GREY)
    _legend(fig)
    return fig


def _outline(ax: Axes, mask: Array) -> None:
    share = (np.arange(len(mask)) + 0.5) / len(mask)
    for colour, thick in (("white", 1.8), ("black", 0.8)):
        ax.contour(share, share, mask.astype(float), levels=[0.5], colors=colour, linewidths=thick)


def _dots(ax: Axes, scores: Array) -> None:
    """The patch of the largest score; none where all are the same."""
    if scores.max() > scores.min():
        y, x = np.nonzero(scores == scores.max())
        ax.plot((x + 0.5) / scores.shape[1], (y + 0.5) / scores.shape[0], "o", ms=5.5, mfc="gold", mec="black", mew=0.9)


def _legend(fig: Figure) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    bar = fig.colorbar(
        ScalarMappable(Normalize(-1, 1), ListedColormap(WHOLE.ramp())),
        cax=_axes(fig, MARGIN + 0.35, 0.42, 2.6, 0.13),
        orientation="horizontal",
        ticks=[-1, 0, 1],
    )
    bar.ax.tick_params(labelsize=8, length=2)
    bar.ax.set_xticklabels(["−largest", "0", "+largest"])
    x = MARGIN + 3.6
    _write(
        fig, x, 0.48, "Red speaks for what is asked for, blue against it; each method has a scale of its own.", size=9
    )
    _write(fig, x, 0.26, "Outline: what is asked for.   Yellow dot: the patch of the largest score.", size=9)


def _axes(fig: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    w, h = fig.get_size_inches()
    return fig.add_axes((left / w, bottom / h, width / w, height / h))


def _write(fig: Figure, left: float, middle: float, text: str, **style: Any) -> None:
    w, h = fig.get_size_inches()
    fig.text(left / w, middle / h, text, va="center", ha="left", parse_math=False, **style)
