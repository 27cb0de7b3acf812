"""Charts of the corpus page, as HTML: a histogram, a list of words with bars, a grid of positions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from isthmus.drawing.scale import Scale, limit_of

_BARS = 48


def number(value: float) -> str:
    """A signed score."""
    return f"{value:+.4f}"


def histogram(name: str, told: Mapping[str, Any], says: str) -> str:
    """A panel with the distribution of a number; see `isthmus.scale.tallies.Histogram.told`."""
    log = bool(told["log"])
    edges, bins = np.array(told["edges"]), np.array(told["bins"], dtype=float)
    line = _line(told, log)
    if not len(bins):
        return f"<div class='panel'><h3>{escape(name)}</h3><p class='said'>{line}</p></div>"
    axis = np.log10(edges) if log else edges
    axis, bins = _fewer(axis, bins)
    axis, bins = _trimmed(axis, bins)
    low, high = float(axis[0]), float(axis[-1])
    top = bins.max() or 1.0
    bars = "".join(
        f"<rect x='{i + 0.06:.2f}' y='{1 - value / top:.4f}' width='0.88' height='{value / top:.4f}'/>"
        for i, value in enumerate(bins)
        if value
    )

    def place(value: float | None) -> float:
        if value is None or (log and value <= 0):
            return 0.0
        return 100 * min(max(((math.log10(value) if log else value) - low) / (high - low), 0.0), 1.0)

    marks = told["quantiles"]
    left, middle, right = (place(marks[share]) for share in ("0.05", "0.5", "0.95"))
    ticks = "".join(
        f"<span style='left:{100 * (at - low) / (high - low):.2f}%'>{said}</span>"
        for at, said in _ticks(low, high, log)
    )
    return (
        f"<div class='panel'><h3>{escape(name)}</h3><p class='under'>{escape(says)}</p>"
        f"<div class='chart' role='img' aria-label='{escape(line, quote=True)}'>"
        f"<div class='band' style='left:{left:.2f}%;width:{right - left:.2f}%'></div>"
        f"<svg viewBox='0 0 {len(bins)} 1' preserveAspectRatio='none' aria-hidden='true'>{bars}</svg>"
        f"<div class='middle' style='left:{middle:.2f}%'></div></div>"
        f"<div class='ticks' aria-hidden='true'>{ticks}</div>"
        f"<p class='said'>{line}</p></div>"
    )


def _line(told: Mapping[str, Any], log: bool) -> str:
    def said(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return "∞"
        return f"{value:.2%}" if log and value < 10 else f"{value:.3f}"

    marks = told["quantiles"]
    line = f"median {said(marks['0.5'])}, 90% of pairs between {said(marks['0.05'])} and {said(marks['0.95'])}"
    extra = [f"{told[name]:,} {name}" for name in ("infinite",) if told[name]]
    if told["zeros"] and log:
        extra.append(f"{told['zeros']:,} exactly 0")
    return ", ".join([line, *extra])


def _fewer(axis: Any, bins: Any) -> tuple[Any, Any]:
    """Neighbouring bins together, until there are few enough to be seen."""
    step = -(-len(bins) // _BARS)
    short = -len(bins) % step
    bins = np.concatenate([bins, np.zeros(short)]).reshape(-1, step).sum(1)
    width = axis[1] - axis[0]
    return axis[0] + width * step * np.arange(len(bins) + 1), bins


def _trimmed(axis: Any, bins: Any) -> tuple[Any, Any]:
    """A few more bars on each side where there are hardly any, so that one does not fill the panel."""
    missing = max(0, 9 - len(bins)) // 2
    width = axis[1] - axis[0]
    bins = np.concatenate([np.zeros(missing), bins, np.zeros(missing)])
    return axis[0] + width * (np.arange(len(bins) + 1) - missing), bins


def _ticks(low: float, high: float, log: bool) -> list[tuple[float, str]]:
    """Places on the axis and what is written there, four or so."""
    if log:
        first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
        found = [(float(n), _percent(n)) for n in range(first, last + 1, max(1, -(-(last - first) // 4)))]
        if len(found) > 1:
            return found
    width = high - low
    raw = width / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    places = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(float(at), f"{10**at:.2g}" if log else f"{at:.{digits}f}") for at in places]


def _percent(power: int) -> str:
    return f"{100 * 10.0**power:,.10g}%"


def tally(name: str, rows: Sequence[Mapping[str, Any]], limit: float) -> str:
    """A panel with words and what they carry; bars reach from 0 to `limit`."""
    lines = "".join(
        f"<tr><td dir='auto' title='{escape(one['word'], quote=True)}'>{escape(one['word'])}</td>"
        f"<td class='lane'>{_lane(one['mean_score'], limit)}</td>"
        f"<td class='number'>{number(one['mean_score'])}</td><td class='number'>{one['mean_share']:+.0%}</td>"
        f"<td class='number'>{one['count']:,}</td></tr>"
        for one in rows
    )
    head = "<th>word</th><th></th>" + "".join(
        f"<th class='number'>{name}</th>" for name in ("mean score", "share", "count")
    )
    return (
        f"<div class='panel'><h3>{escape(name)}</h3><table class='tally'><thead><tr>{head}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def _lane(score: float, limit: float) -> str:
    kind = " class='minus'" if score < 0 else ""
    return f"<i{kind} style='width:{100 * min(abs(score) / (limit or 1), 1):.1f}%'></i>"


def positions(told: Mapping[str, Any]) -> str:
    """Panels with the mean of the maps of one grid, and its corners; see `isthmus.scale.positions.Positions.told`."""
    share, mass = np.array(told["mean_share"]), np.array(told["mean_mass"])
    scale = Scale(limit_of(share.ravel().tolist()), "share of the map")
    shape = f"{told['rows']} × {told['columns']} patches, {told['count']:,} pairs"
    if told["pictures"] != told["count"]:
        shape += f" of {told['pictures']:,} picture{', ' if told['pictures'] == 1 else 's, '}each counting once"
    signed = [[scale.colour(value) for value in row] for row in share.tolist()]
    top = float(mass.max()) or 1.0
    grey = [[_grey(value / top) for value in row] for row in mass.tolist()]
    corners = told["corners"]
    return (
        "<div class='panels'>"
        f"<div class='panel'><h3>What each position carries</h3>{_grid(signed, share, '+.2%')}"
        f"<p class='said'>Mean share of the map, signed, from {-scale.limit:.2%} (blue) to {scale.limit:+.2%} (red); "
        f"{shape}.</p></div>"
        f"<div class='panel'><h3>Where attribution lies</h3>{_grid(grey, mass, '.2%')}"
        f"<p class='said'>Mean of its size, whatever its sign, from 0 to {top:.2%}; evenly spread it were "
        f"{1 / mass.size:.2%} everywhere.</p></div>"
        f"<div class='panel'><h3>Corners</h3>{_corners(corners)}</div></div>"
    )


def _corners(told: Mapping[str, Any]) -> str:
    named = {name: one for name, one in told.items() if isinstance(one, Mapping)}
    boxes = "".join(f"<div{_beyond(one)}><b>{one['mass']:.1%}</b>{name}</div>" for name, one in named.items())
    height, width = told["cells"]
    cells = "one patch" if height * width == 1 else f"{height} × {width} patches"
    usual = max(one["usual"] for one in named.values())
    said = f"Share of a map's size in the corner of {cells}; usual along the border here: {usual:.1%}."
    hints = "".join(
        f"<p class='hint'>The {name} corner carries {one['mass'] / one['usual']:.1f} times what is usual: "
        "look there for a logo or a watermark.</p>"
        for name, one in named.items()
        if one["beyond"] and one["usual"] > 0
    )
    return f"<div class='corners'>{boxes}</div><p class='said'>{said}</p>{hints}"


def _beyond(one: Mapping[str, Any]) -> str:
    return " class='beyond'" if one["beyond"] else ""


def _grey(value: float) -> str:
    """White at 0, dark violet at 1."""
    return "#" + "".join(f"{round(255 + (dark - 255) * value):02x}" for dark in (58, 42, 92))


def _grid(colours: Sequence[Sequence[str]], values: Any, form: str) -> str:
    rows, columns = values.shape
    cells = "".join(
        f"<i style='background:{colours[r][c]}' title='row {r + 1}, column {c + 1}: {values[r, c]:{form}}'></i>"
        for r in range(rows)
        for c in range(columns)
    )
    return (
        f"<div class='grid' role='img' aria-label='{_in_words(values, form)}' "
        f"style='grid-template-columns:repeat({columns},1fr);aspect-ratio:{columns}/{rows}'>{cells}</div>"
    )


def _in_words(values: Any, form: str) -> str:
    row, column = np.unravel_index(int(np.argmax(values)), values.shape)
    size = f"{values.shape[0]} by {values.shape[1]}"
    return f"{size} positions; most in row {row + 1}, column {column + 1}: {values.max():{form}}"
