"""A hundred million pairs on paper: machines, hours and storage from measured rates, and which are not measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from isthmus.benchmark.table import grid_markdown
from speed_floor import needed
from speed_machine import Point
from speed_models import SHAPES, Shape

RESULTS = Path(__file__).resolve().parent / "results"
PAIRS = 100_000_000
CORES, NODES = 64, 100  # of a CPU machine; how many of them
CARDS, GPU_NODES = 8, 4  # of a GPU machine; how many of them
TEXT = 16  # tokens of a caption
DTYPE = "bfloat16"
FORMS = ("float32", "float16", "int8", "vectors")
SETTINGS = {"default": (0, 10), "light": (9, 3)}  # layer and nodes
_PEAK = 989e12  # operations a second of an H100 or H200 in bfloat16, as their maker says
_SHARE = 0.25  # of that, where nothing is measured
_ENGINE = 0.8  # of the bare loop, where nothing is measured
Points = Mapping[str, Point]


@dataclass(frozen=True)
class Rate:
    """Pairs a second of one core or GPU through the Ray engine, and where the figure is from."""

    value: float
    basis: str


def operations(shape: Shape, setting: str) -> int:
    """That a pair needs, both sides."""
    layer, nodes = SETTINGS[setting]
    return sum(needed(shape, side, n, layer, nodes) for side, n in (("image", shape.positions), ("text", TEXT)))


def loaded(name: str) -> Points:
    """Points of a file of results; none where there is no such file."""
    path = RESULTS / name
    return dict(json.loads(path.read_text(encoding="utf-8"))["points"]) if path.is_file() else {}


def threads() -> int:
    """Of the machine that speed-cpu.json is from."""
    path = RESULTS / "speed-cpu.json"
    return int(json.loads(path.read_text(encoding="utf-8"))["machine"]["threads"]) if path.is_file() else 1


def core_rate(name: str, setting: str, beside: float) -> Rate | None:
    """Of a core, from the loop's rate on a few, and the seconds of a core that the engine takes beside it."""
    points, cores = loaded("speed-cpu.json"), threads()
    point, basis = points.get(f"floor/{name}/{setting}/{DTYPE}"), f"loop measured on {cores} cores"
    share = 1.0
    if point is None:
        point, basis = (
            points.get(f"floor/{name}/light/{DTYPE}"),
            f"by operations from light, measured on {cores} cores",
        )
        share = operations(SHAPES[name], setting) / operations(SHAPES[name], "light")
    if point is None:
        return None
    return Rate(1 / (share * point["seconds"] * cores / point["pairs"] + beside), basis)


def card_rate(name: str, setting: str) -> Rate:
    """Of an H200: the Ray engine's on a GPU, else the local one's, else the loop's, else by operations."""
    points = loaded("scale-gpu.json")
    measured = {
        one: next((points[key]["rate"] for key in _keys(name, one) if "rate" in points.get(key, {})), None)
        for one in SETTINGS
    }
    if measured[setting]:
        return Rate(measured[setting], f"engine measured on {card()}")
    if loop := loaded("speed-cuda.json").get(f"floor/{name}/{setting}/{DTYPE}"):
        return Rate(_ENGINE * loop["pairs"] / loop["seconds"], f"{_ENGINE:.0%} of the loop measured on {card()}")
    for other, rate in measured.items():
        if rate:
            share = operations(SHAPES[name], other) / operations(SHAPES[name], setting)
            return Rate(rate * share, f"by operations from {other}, measured on {card()}")
    value = _ENGINE * _SHARE * _PEAK / operations(SHAPES[name], setting)
    return Rate(value, f"not measured: {_SHARE:.0%} of the peak that the maker states")


def _keys(name: str, setting: str) -> list[str]:
    return [f"{name}/{setting}/{DTYPE}/{engine}" for engine in ("ray", "local")]


def card() -> str:
    """The GPU that was measured."""
    for name in ("scale-gpu.json", "speed-cuda.json"):
        path = RESULTS / name
        if path.is_file():
            return str(json.loads(path.read_text(encoding="utf-8"))["machine"].get("gpu", "a GPU"))
    return "a GPU"


def plan(points: Points) -> str:
    """The tables, and what they are made of."""
    return "\n\n".join(part.strip() for part in _parts(points))


def _parts(points: Points) -> Iterator[str]:
    beside = beside_ms(points)
    yield (
        f"{PAIRS:,} pairs, `nib`, both sides, {DTYPE}. `default`: layer 0, 10 nodes; `light`: layer 9, 3 nodes. A CPU "
        f"machine has {CORES} cores, a GPU machine {CARDS} H200s; rates of more cores and GPUs than were measured are "
        f"products. On a CPU the engine takes {beside:.0f} ms of a core a pair beside the loop (measured above). An "
        "H200 computes as an H100 does and has more memory, so a figure of an H100 stands for it."
    )
    heads = ["model", "setting", "on", "pairs/s a machine", "machine hours", "hours", "basis"]
    yield grid_markdown(heads, _machines(beside / 1e3))
    yield f"Hours are those of {NODES} CPU machines, or {GPU_NODES} GPU machines."
    yield from _storage(points)


def beside_ms(points: Points) -> float:
    """Of a core, that a pair takes in the Ray engine beside the loop: the median of what was measured."""
    from scale_doc import turns

    found = [
        one["cpu_ms"] - two["cpu_ms"]
        for engines in turns(points).values()
        for one, two in zip(engines.get("ray", []), engines.get("bare", []), strict=False)
    ]
    return max(0.0, statistics.median(found)) if found else 0.0


def _machines(beside: float) -> list[list[str]]:
    lines = []
    for name in ("b32", "l14"):
        for setting in SETTINGS:
            for title, rate, units, nodes in (
                ("CPU", core_rate(name, setting, beside), CORES, NODES),
                ("H200", card_rate(name, setting), CARDS, GPU_NODES),
            ):
                if rate is not None:
                    each = rate.value * units
                    hours = PAIRS / each / 3600
                    figures = [
                        f"{each:,.3g}",
                        f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}",
                        f"{hours / nodes:,.1f}",
                    ]
                    lines.append([SHAPES[name].title, setting, title, *figures, rate.basis])
    return lines


def _storage(points: Points) -> Iterator[str]:
    lines = []
    for name, shape in SHAPES.items():
        sizes = [points.get(f"sizes/{name}/{form}") for form in FORMS]
        if all(sizes):
            lines.append([shape.title, *(f"{PAIRS * one['bytes'] / 1e12:,.2g}" for one in sizes if one)])
    if lines:
        yield grid_markdown(["TB of output", *FORMS], lines)
    if opening := points.get("opening"):
        size, taken = opening["bytes"], opening["cpu_ms"]
        fastest = card_rate("b32", "default")
        yield (
            f"Input: {PAIRS * size / 1e12:,.0f} TB at {size / 1e3:,.0f} kB a picture, the mean of those measured here. "
            f"Opening one takes {taken:.1f} ms of a core (measured): {PAIRS * taken / 3.6e6:,.0f} core hours, and "
            f"{fastest.value * taken / 1e3:.1f} cores beside a GPU that explains {fastest.value:,.0f} pairs/s, which "
            f"reads {fastest.value * size / 1e6:,.0f} MB/s."
        )
