"""A hundred million pairs on paper: machines, hours and storage from measured rates, and which are not measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
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
MODELS = ("b32", "l14")
FORMS = ("float32", "float16", "int8", "vectors")
SETTINGS = {"default": (0, 10), "light": (9, 3)}  # layer and nodes
SIZES = "scale-sizes.json"  # bytes of a pair: of this and of docs/scale-output.md
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


def card_rate(name: str, setting: str) -> Rate | None:
    """Of an H200: the Ray engine's on a GPU, else the local one's; none where neither was measured.

    Nothing else stands for it: neither the bare loop, which an engine may outdo, nor operations, which a small model's
    GPU does not wait for.
    """
    points = loaded("scale-gpu.json")
    for engine in ("ray", "local"):
        if rate := points.get(_key(name, setting, engine), {}).get("rate"):
            return Rate(rate, f"engine measured on {card()}")
    return None


def _key(name: str, setting: str, engine: str) -> str:
    return f"{name}/{setting}/{DTYPE}/{engine}"


def card() -> str:
    """The GPU that was measured."""
    path = RESULTS / "scale-gpu.json"
    known = json.loads(path.read_text(encoding="utf-8"))["machine"] if path.is_file() else {}
    return str(known.get("gpu", "a GPU"))


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
    yield from _left_out()
    yield from _storage()
    yield from _input(points)


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
    for name in MODELS:
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


def _left_out() -> Iterator[str]:
    """What has no line of an H200, and why neither loop nor operations give it one."""
    lacking = [f"{SHAPES[name].title} `{one}`" for name in MODELS for one in SETTINGS if card_rate(name, one) is None]
    if not lacking:
        return
    yield f"Without a line, as not measured through an engine on a GPU: {', '.join(lacking)}."
    points = loaded("scale-gpu.json")
    small, loop = (points.get(_key("b32", "default", one), {}) for one in ("ray", "bare"))
    large = card_rate("l14", "default")
    if "rate" not in loop or not {"rate", "utilisation"} <= set(small) or large is None:
        return
    fewer = operations(SHAPES["l14"], "default") / operations(SHAPES["l14"], "light")
    share, host, now = small["rate"] / loop["rate"], 1e3 / small["rate"], 1e3 / large.value
    if share > 1 and small["utilisation"] < 50 and now / fewer < host:  # else this is not what was measured
        yield (
            "Nothing that was measured stands for them. A share of the bare loop does not: of a ViT-B/32 at `default` "
            f"the engine does {share:.0%} of what the loop does. Operations do not: that GPU is "
            f"{small['utilisation']:.0f}% busy, so that pairs wait for the host, {host:.1f} ms each. By operations, of "
            f"which `light` needs {fewer:.1f} times fewer, a ViT-L/14 would go from {now:.1f} ms a pair to "
            f"{now / fewer:.1f}, which is less than that."
        )


def gigabytes(size: float) -> str:
    """GB that a million pairs of a size in bytes take; what is told of a size anywhere is this, or a multiple of it."""
    return f"{size / 1e3:.2f}" if size < 1e4 else f"{size / 1e3:.0f}"


def terabytes(size: float) -> str:
    """TB that all pairs take: digits of `gigabytes`, for they are a hundred million, and a TB is a thousand GB."""
    return str(Decimal(gigabytes(size)).scaleb(-1))


def _storage() -> Iterator[str]:
    points = loaded(SIZES)
    lines = [
        [SHAPES[name].title, *(terabytes(points[f"{name}/{form}"]["bytes"]) for form in FORMS)]
        for name in MODELS
        if f"{name}/{FORMS[0]}" in points
    ]
    if lines:
        yield grid_markdown(["TB of output", *FORMS], lines)
        yield "A hundred times what a million pairs take by [scale-output.md](scale-output.md#stored-forms)."


def _input(points: Points) -> Iterator[str]:
    if opening := points.get("opening"):
        size, taken = opening["bytes"], opening["cpu_ms"]
        beside, fastest = "", card_rate("b32", "default")
        if fastest is not None:
            rate = fastest.value
            beside = (
                f", and {rate * taken / 1e3:.1f} cores beside a GPU that explains {rate:,.0f} pairs/s, which reads "
                f"{rate * size / 1e6:,.0f} MB/s"
            )
        yield (
            f"Input: {PAIRS * size / 1e12:,.0f} TB at {size / 1e3:,.0f} kB a picture, the mean of those measured here. "
            f"Opening one takes {taken:.1f} ms of a core (measured): {PAIRS * taken / 3.6e6:,.0f} core hours{beside}."
        )
