"""What scale.py, scale_gpu.py and scale_sizes.py measured, as tables of docs/scale-cluster.md and docs/scale-output.md.

`python benchmarks/scale_doc.py` puts all that is in results/ into both.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from isthmus.benchmark.table import grid_markdown
from scale_plan import FORMS, RESULTS, SIZES, gigabytes, plan
from scale_sizes import GRIDS
from speed_machine import Point, described
from speed_models import SHAPES

DOCS = Path(__file__).resolve().parents[1] / "docs"
DOC, OUTPUT = DOCS / "scale-cluster.md", DOCS / "scale-output.md"
GPU_TITLES = {"bare": "bare loop", "local": "local engine", "ray": "Ray, one worker"}
TITLES = {"bare": "bare loop", "local": "local engine", "ray": "Ray, two machines"}
_PARTS = {
    "driver": "driver",
    "worker": "worker",
    "reader": "reader",
    "decoder": "opener of pictures",
    "shared": "store",
}
Points = Mapping[str, Point]


def write(known: dict[str, Any], points: Points) -> None:
    """Put the tables between their marks, in both documents."""
    _put(DOC, {"scale-measured": measured(known, points), "scale-gpu": gpu(), "scale-plan": plan(points)})
    _put(OUTPUT, {"scale-sizes": sizes()})


def _put(page: Path, bodies: Mapping[str, str]) -> None:
    text = page.read_text(encoding="utf-8")
    for mark, body in bodies.items():
        head, rest = text.split(f"<!-- {mark} -->\n")
        _, tail = rest.split(f"<!-- /{mark} -->")
        text = f"{head}<!-- {mark} -->\n\n{body.strip()}\n\n<!-- /{mark} -->{tail}"
    page.write_text(text, encoding="utf-8")


def sizes() -> str:
    """What `scale_sizes.py` measured: GB that a million pairs take."""
    path = RESULTS / SIZES
    if not path.is_file():
        return "Not measured yet."
    found = json.loads(path.read_text(encoding="utf-8"))
    points, rows = found["points"], found["rows"]
    lines = [
        [title, f"{side} × {side}", *(gigabytes(points[f"{name}/{form}"]["bytes"]) for form in FORMS)]
        for name, (title, side, _) in GRIDS.items()
    ]
    table, rest = grid_markdown(["GB a million pairs", "grid", *FORMS], lines), gigabytes(points["rest"]["bytes"])
    return (
        f"{table.strip()}\n\nOf those, {rest} GB are all that is not the map: the words and tokens with their scores "
        f"and places take most of it. Measured on files of {rows['pairs']:,} pairs, each with a picture and a caption "
        f"of its own, of {rows['words']:.0f} words; {rows['end'] / 1e3:.0f} kB of a file are its end, so that larger "
        "pieces take less a pair."
    )


def measured(known: dict[str, Any], points: Points) -> str:
    """All that was measured on one machine."""
    return "\n\n".join([f"{described(known)}.", *_rates(points), *_memory(points), *_rows(points)])


def gpu() -> str:
    """What `scale_gpu.py` measured."""
    path = RESULTS / "scale-gpu.json"
    if not path.is_file():
        return "Not measured yet."
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = []
    for key, point in found["points"].items():
        name, setting, dtype, engine = key.split("/")
        loop = found["points"].get(f"{name}/{setting}/{dtype}/bare", {}).get("rate")
        told = [SHAPES[name].title, setting, dtype, GPU_TITLES[engine]]
        if "rate" not in point:
            lines.append([*told, point.get("error", "not measured"), "", "", ""])
            continue
        share = f"{100 * point['rate'] / loop:.0f}%" if loop else ""
        busy = f"{point['utilisation']:.0f}%" if "utilisation" in point else ""
        memory = f"{point['gpu_memory']:,}" if "gpu_memory" in point else ""
        lines.append([*told, f"{point['rate']:,.1f}", share, busy, memory])
    heads = ["model", "setting", "dtype", "", "pairs/s", "of the bare loop", "GPU busy", "GPU memory, MiB"]
    return f"{described(found['machine'])}.\n\n{grid_markdown(heads, lines)}"


def turns(points: Points) -> dict[tuple[str, int], dict[str, list[Point]]]:
    """The points of engines that took turns, by method and number of pairs: as many of each engine as of all."""
    found: dict[tuple[str, int], dict[str, list[Point]]] = {}
    for key, point in sorted(points.items()):
        part, *rest = key.split("/")
        if part == "turn":
            found.setdefault((rest[0], int(rest[1])), {}).setdefault(rest[2], []).append(point)
    return found


def ratio(engines: Mapping[str, list[Point]], engine: str, figure: str = "rate") -> float | None:
    """Of an engine's figure to the loop's of the same turn: the median over turns; of `cpu_ms` the other way round."""
    both = list(zip(engines.get(engine, []), engines.get("bare", []), strict=False))
    values = [one[figure] / two[figure] for one, two in both if two.get(figure) and one.get(figure)]
    if not values:
        return None
    return statistics.median(values) if figure == "rate" else 1 / statistics.median(values)


def _rates(points: Points) -> Iterator[str]:
    heads = ["", "pairs/s", "of the bare loop", "CPU, ms a pair", "of the bare loop"]
    for (method, count), engines in turns(points).items():
        yield grid_markdown(heads, _lines(engines))
        number = max(map(len, engines.values()))
        yield f"{count:,} pairs, `{method}`, in turns; medians of {number}, from the first piece to the last."
    for method, count in _long(points):
        engines = {e: [points[f"all/{method}/{count}/{e}"]] for e in TITLES if f"all/{method}/{count}/{e}" in points}
        yield grid_markdown(heads, _lines(engines))
        yield f"{count:,} pairs, `{method}`, one after another, from the first piece to the last."


def _lines(engines: Mapping[str, list[Point]]) -> list[list[str]]:
    lines = []
    for engine, title in TITLES.items():
        if found := engines.get(engine):
            rate, cpu = (statistics.median(one[name] for one in found) for name in ("rate", "cpu_ms"))
            shares = [ratio(engines, engine, figure) for figure in ("rate", "cpu_ms")]
            told = ["" if share is None else f"{100 * share:.0f}%" for share in shares]
            lines.append([title, f"{rate:.1f}", told[0], f"{cpu:.1f}", told[1]])
    return lines


def _long(points: Points) -> list[tuple[str, int]]:
    """Methods and numbers of pairs of the long runs."""
    return sorted({(k.split("/")[1], int(k.split("/")[2])) for k in points if k.startswith("all/")})


def _memory(points: Points) -> Iterator[str]:
    for method, count in _long(points):
        few = [number for own, number in turns(points) if own == method]
        lines = []
        for engine in ("local", "ray"):
            for number in (*few, count):
                key = f"turn/{method}/{number}/{engine}/0" if number != count else f"all/{method}/{count}/{engine}"
                if key in points:
                    held = points[key]["memory"]
                    lines.append([TITLES[engine], f"{number:,}", *(f"{held.get(part, 0):,}" for part in _PARTS)])
        yield grid_markdown(["MiB at most", "pairs", *_PARTS.values()], lines)


def _rows(points: Points) -> Iterator[str]:
    for key, point in points.items():
        if key.startswith("rows/"):
            worst = ", ".join(f"{name} {value:.1e}" for name, value in point["worst"].items())
            yield (
                f"Rows of both engines, `{key.split('/')[1]}`: {point['rows']:,} with the same ids, texts and words in "
                f"{point['rows'] - point['others']:,}; the largest differences are {worst}."
            )


if __name__ == "__main__":
    stored = json.loads((RESULTS / "scale.json").read_text(encoding="utf-8"))
    write(stored["machine"], stored["points"])
