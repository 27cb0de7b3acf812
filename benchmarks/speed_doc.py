"""The tables of docs/speed.md from what benchmarks/speed.py measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.benchmark.table import grid_markdown
from speed_machine import Point, described
from speed_models import SETTINGS, SHAPES
from speed_ratio import TITLES

DOC = Path(__file__).resolve().parents[1] / "docs" / "speed.md"
Points = Mapping[str, Point]
_MEASURES = ("median", "all", "worst")


def write(where: str, known: dict[str, Any], points: Points) -> None:
    """Put the tables between the marks `<!-- speed-cpu -->` and `<!-- /speed-cpu -->`, or a GPU's."""
    mark, text = f"speed-{where}", DOC.read_text(encoding="utf-8")
    head, rest = text.split(f"<!-- {mark} -->\n")
    _, tail = rest.split(f"<!-- /{mark} -->")
    body = f"<!-- {mark} -->\n\n{tables(known, points)}\n\n<!-- /{mark} -->"
    DOC.write_text(head + body + tail, encoding="utf-8")


def tables(known: dict[str, Any], points: Points) -> str:
    """All tables of one machine."""
    parts = [described(known) + ".", *ratios(points), *floors(points), *memories(points), *scalings(points)]
    return "\n\n".join(part.strip() for part in parts)


def _of(points: Points, part: str) -> dict[tuple[str, ...], Point]:
    """The points of a part by the rest of their keys, in order of the shapes, then of numbers."""
    found = {tuple(key.split("/")[1:]): point for key, point in points.items() if key.startswith(f"{part}/")}
    return dict(sorted(found.items(), key=lambda item: [(int(k), "") if k.isdigit() else (0, k) for k in item[0]]))


def ratios(points: Points) -> Iterator[str]:
    """A table a shape and number of pairs; the plain loop is 1."""
    heads = ["", "nodes, picture / text", "s a pair", "times faster", "delta, picture", "delta, text", "as complete"]
    for (shape, count), point in _of(points, "ratio").items():
        rows = point["contestants"]
        lines = [[TITLES[name], *_ratio(rows[name], point["pairs"])] for name in TITLES if name in rows]
        rounds = rows["plain"]["repeats"]
        layer, pairs = SHAPES[shape].layer, "1 pair" if count == "1" else f"{count} pairs"
        caption = (
            f"{SHAPES[shape].title}, layer {layer}, {pairs}, both sides; median of {rounds}; deltas: "
            "median / of all pairs together / worst."
        )
        yield _table(heads, lines, caption)


def _ratio(row: Mapping[str, Any], pairs: int) -> list[str]:
    nodes = "" if row["steps"] is None else f"{row['steps']['image']} / {row['steps']['text']}"
    deltas = [
        " / ".join(f"{one[name]:.1%}" for name in _MEASURES) for one in (row["deltas"][s] for s in ("image", "text"))
    ]
    complete = "yes" if row["as_complete"] else "but for the worst" if row["as_complete_but_worst"] else "no"
    return [nodes, f"{row['seconds'] / pairs:.3f}", f"{row['times_plain']:.1f}", *deltas, complete]


def floors(points: Points) -> Iterator[str]:
    """What the work needs, over seconds, as a share of a matrix product's rate."""
    found = _of(points, "floor")
    heads = [
        "model",
        "dtype",
        "pairs",
        "GFLOP needed a pair",
        "s a pair",
        "product, GFLOP/s",
        "share",
        "share of all done",
    ]
    for setting, title in SETTINGS.items():
        lines = [
            [
                SHAPES[shape].title,
                dtype,
                str(point["pairs"]),
                f"{point['needed'] / point['pairs'] / 1e9:.1f}",
                f"{point['seconds'] / point['pairs']:.3f}",
                f"{point['product'] / 1e9:,.0f}",
                f"{point['share']:.0%}",
                f"{point['share_performed']:.0%}",
            ]
            for (shape, used, dtype), point in found.items()
            if used == setting
        ]
        if lines:
            yield _table(heads, lines, f"Share of the arithmetic floor; {title}.")


def memories(points: Points) -> Iterator[str]:
    """Growth of memory over what the model holds, by pairs and budget."""
    lines = [
        [
            f"{SHAPES[shape].title}, {SETTINGS[setting]}",
            count,
            f"{int(budget):,}" if budget != "0" else "default",
            f"{point['growth'] / 2**20:,.0f}",
            "" if point["ratio"] is None else f"{point['ratio']:.2f}",
        ]
        for (shape, setting, count, budget), point in _of(points, "memory").items()
    ]
    if lines:
        heads = ["", "pairs", "budget, MiB", "peak over the model, MiB", "of the budget"]
        yield _table(heads, lines, "Memory, each line in a process of its own, float32.")


def scalings(points: Points) -> Iterator[str]:
    """Rates by number of pairs, and of texts of one picture."""
    found = _of(points, "scaling")
    for kind, title in (("pairs", "pairs in one call"), ("texts", "texts of one picture in one call")):
        own = [(count, point) for (one, count), point in found.items() if one == kind]
        lines = [[count, f"{point['seconds']:.3f}", f"{point['rate']:.2f}"] for count, point in own]
        if lines:
            yield _table([title, "seconds", "pairs a second"], lines, f"Scaling; {SETTINGS['light']}.")


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]], caption: str) -> str:
    """Names in it are code, which `grid_markdown` would show as it stands."""
    return grid_markdown(heads, lines, caption=caption).replace("\\`", "`")
