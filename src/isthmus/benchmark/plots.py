"""Plots of a run: bars with intervals, insertion and deletion curves, speed against faithfulness."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.benchmark.curves import GRID, curves_of, with_curves
from isthmus.benchmark.summary import COSTS, SPEED, TRIVIAL, Rows, SummaryRow
from isthmus.drawing.figure import _settings
from isthmus.errors import OptionError
from isthmus.export import Writer, write_files
from isthmus.metrics.intervals import mean_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 4.6  # inches, of a panel
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#882255")  # Okabe & Ito, but for yellow
_DASHES = ("-", "--", "-.", ":")  # where the colours begin again
_PLAIN = {
    "random": ("#77777f", ":"),
    "flat": ("#77777f", "-."),
    "centre": ("#77777f", "--"),
    "oracle": ("#111111", "-"),
}
_POSITIONS = {"image": "patches", "text": "tokens"}
_DONE = {"insertion": "inserted", "deletion": "deleted"}
_SOFT = "#dcdce2"


def bars(summary: Sequence[SummaryRow], metric: str, side: str, variant: str) -> Figure:
    """A matplotlib Figure: the mean of each method with its interval, a panel for each dataset.

    Args:
        summary: see `isthmus.benchmark.summary.summarise`.
        metric, side, variant: what to draw.

    Raises:
        OptionError: nothing of this metric, side and variant in the summary.
    """
    panels = _panels(summary, metric, side, variant)
    style = _styles(row.method for row in summary)
    with _look():
        fig, axes = _figure(list(panels), 0.9 + 0.3 * max(map(len, panels.values())))
        for ax, rows in zip(axes, panels.values(), strict=True):
            rows = sorted(rows, key=lambda row: row.method in TRIVIAL)
            for place, row in enumerate(rows):
                ax.barh(place, row.mean, height=0.66, color=style[row.method][0], alpha=0.6)
                if math.isfinite(row.low) and math.isfinite(row.high):
                    ax.plot([row.low, row.high], [place, place], color="black", linewidth=1.4, label="interval")
            ax.axvline(0, color="black", linewidth=0.8)
            ax.set_yticks(range(len(rows)), [row.method for row in rows])
            ax.invert_yaxis()
            ax.set_xlabel(_axis(rows[0]))
    return fig


def curves(rows: Rows, metric: str, side: str, variant: str) -> Figure:
    """A matplotlib Figure: the mean over pairs of each method's curve with its 95 % band, a panel for each dataset.

    Curves have as many points as a pair has positions, so each is first read off at the same 101 shares.

    Args:
        rows: of a run, see `isthmus.benchmark.summary.Rows`.
        metric: "insertion" or "deletion".
        side, variant: what to draw.

    Raises:
        OptionError: no curve of this metric, side and variant in the rows.
    """
    panels = curves_of(rows, metric, side, variant)
    if not panels:
        raise _nothing(metric, side, variant, with_curves(rows))
    style = _styles(rows.column("method").unique().to_pylist())
    with _look():
        fig, axes = _figure(list(panels), 3.6)
        for ax, methods in zip(axes, panels.values(), strict=True):
            for name, (values, samples) in methods.items():
                colour, dash = style[name]
                ax.plot(GRID, values.mean(0), color=colour, linestyle=dash, linewidth=1.5, label=name)
                if len(set(samples)) > 1:
                    band = mean_intervals(values.T, clusters=samples)
                    ax.fill_between(GRID, *band, color=colour, alpha=0.15, linewidth=0)
            ax.set_xlim(0, 1)
            ax.set_xlabel(f"share of {_POSITIONS.get(side, 'positions')} {_DONE.get(metric, '')}".strip())
            ax.set_ylabel(f"score ({variant})" if variant else "score")
            ax.legend(frameon=False, fontsize=8)
    return fig


def speed(summary: Sequence[SummaryRow], metric: str, side: str, variant: str) -> Figure:
    """A matplotlib Figure: seconds per pair, on a logarithmic axis, against the mean of each method with its interval.

    Trivial maps, which take no time, are lines. A panel for each dataset.

    Args:
        summary: see `isthmus.benchmark.summary.summarise`; the times are its rows of the metric "seconds".
        metric, side, variant: what to draw against the times.

    Raises:
        OptionError: nothing of this metric, side and variant in the summary, or no times.
    """
    times = _times(summary)
    panels = _panels(summary, metric, side, variant)
    if not any((row.dataset, row.method) in times for rows in panels.values() for row in rows):
        raise OptionError(f"The summary has no times of methods on {metric!r}: run the evaluation with its times kept.")
    style = _styles(row.method for row in summary)
    with _look():
        fig, axes = _figure(list(panels), 3.6)
        for ax, rows in zip(axes, panels.values(), strict=True):
            ax.set_xscale("log")
            for row in rows:
                _point(ax, row, times.get((row.dataset, row.method)), style[row.method])
            _plain_ticks(ax)
            ax.set_xlabel("seconds per pair")
            ax.set_ylabel(_axis(rows[0]))
    return fig


def save_plots(rows: Rows, summary: Sequence[SummaryRow], folder: Path) -> list[Path]:
    """Write every plot that the rows allow as PNG and SVG: all of them or none, the same bytes for the same run.

    Args:
        rows: of a run.
        summary: of the same rows.
        folder: is made where it is missing.

    Returns:
        The files.

    Raises:
        SaveError: the folder cannot be written to.
    """
    times = _times(summary)
    made: dict[str, Callable[[], Figure]] = {}
    for key in dict.fromkeys(row.key[1:] for row in summary if row.metric not in COSTS):
        made[_name("bars", key, made)] = partial(bars, summary, *key)
        if any(row.key[1:] == key and (row.dataset, row.method) in times for row in summary):
            made[_name("speed", key, made)] = partial(speed, summary, *key)
    for key in with_curves(rows):
        made[_name("curves", key, made)] = partial(curves, rows, *key)
    files: dict[str, Writer] = {}
    for name, make in made.items():
        once = cache(make)
        files[f"{name}.png"] = partial(_write, once, "png")
        files[f"{name}.svg"] = partial(_write, once, "svg")
    return list(write_files(folder, files)) if files else []


def to_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as "png" or "svg" bytes, the same for the same figure."""
    options: dict[str, Any] = (
        {"dpi": 130, "metadata": {"Software": None}} if kind == "png" else {"metadata": {"Date": None, "Creator": None}}
    )
    buffer = io.BytesIO()
    with _look():
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def _write(make: Callable[[], Figure], kind: str, path: Path) -> None:
    path.write_bytes(to_bytes(make(), kind))


def _name(kind: str, key: Sequence[str], taken: Iterable[str]) -> str:
    """A file's name; where two differ only in signs that a file's name cannot have, the second gets a number."""
    name = re.sub(r"[^\w.+-]+", "-", "-".join(filter(None, (kind, *key))))
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def _panels(summary: Sequence[SummaryRow], metric: str, side: str, variant: str) -> dict[str, list[SummaryRow]]:
    found: dict[str, list[SummaryRow]] = {}
    for row in summary:
        if row.key[1:] == (metric, side, variant):
            found.setdefault(row.dataset, []).append(row)
    if not found:
        raise _nothing(metric, side, variant, (row.key[1:] for row in summary))
    return found


def _nothing(metric: str, side: str, variant: str, there: Iterable[tuple[str, ...]]) -> OptionError:
    names = "; ".join(" / ".join(filter(None, key)) for key in dict.fromkeys(there)) or "nothing"
    asked = " / ".join(filter(None, (metric, side, variant)))
    return OptionError(f"There is no {asked!r} to draw: choose among what the run has, {names}.")


def _times(summary: Sequence[SummaryRow]) -> dict[tuple[str, str], float]:
    return {(row.dataset, row.method): row.mean for row in summary if row.metric == SPEED and row.mean > 0}


def _styles(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and dash of each method, the same in all plots of a run."""
    seen = [name for name in dict.fromkeys(methods) if name not in TRIVIAL]
    turns = ((_COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % len(_DASHES)]) for i in range(len(seen)))
    return {**_PLAIN, **dict(zip(seen, turns, strict=True))}


def _axis(row: SummaryRow) -> str:
    """What an axis shows, and in which direction it is better."""
    what = ", ".join(filter(None, (row.metric, row.side, row.variant))) + (f" ({row.unit})" if row.unit else "")
    return what + (f"\n{row.better} is better" if row.better else "")


def _point(ax: Axes, row: SummaryRow, seconds: float | None, style: tuple[str, str]) -> None:
    if not math.isfinite(row.mean):
        return
    if seconds is None:
        if row.method in TRIVIAL:
            ax.axhline(row.mean, color=style[0], linestyle=style[1], linewidth=0.9)
            place = 1 - 0.2 * TRIVIAL.index(row.method)  # side by side, since lines may be close
            ax.text(
                place, row.mean, row.method, transform=ax.get_yaxis_transform(), fontsize=7, ha="right", va="bottom"
            )
        return
    if math.isfinite(row.low) and math.isfinite(row.high):
        ax.plot([seconds, seconds], [row.low, row.high], color=style[0], linewidth=1.4)
    ax.plot([seconds], [row.mean], marker="o", markersize=5, color=style[0], linestyle="none", label=row.method)
    ax.annotate(row.method, (seconds, row.mean), (5, 4), textcoords="offset points", fontsize=8, color=style[0])


def _plain_ticks(ax: Axes) -> None:
    """0.01 rather than a power, which would need math in a text."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.margins(x=0.15)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _figure(titles: Sequence[str], height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(_WIDTH * len(titles), height), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(fig)
    axes = list(fig.subplots(1, len(titles), squeeze=False)[0])
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=11, loc="left", weight="bold")
        ax.grid(color=_SOFT, linewidth=0.6)
        ax.set_axisbelow(True)
    return fig, axes


@contextmanager
def _look() -> Iterator[None]:
    """The drawing room's fonts; names that hold `$` or `_` are themselves."""
    import matplotlib

    plain = {"text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    with _settings(), matplotlib.rc_context(plain):
        yield
