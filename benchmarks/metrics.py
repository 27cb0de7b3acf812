"""Pairs a second of every metric, and its passes, side by side in one run.

    python benchmarks/metrics.py            the bundled model, 16 pairs, 49 patches
    python benchmarks/metrics.py --write    also puts the table into docs/metrics.md

Pictures are decoded, the model is warm, and nothing is kept from one metric to the next; a run shares masked copies.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import numpy as np
from PIL import Image

import isthmus
from isthmus.benchmark.table import grid_markdown
from isthmus.encoders.counting import counted
from isthmus.metrics import METRICS, Judged, pairs_of
from isthmus.metrics.trivial import trivial

ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "metrics.md"
BEGIN, END = "<!-- speed -->\n", "<!-- /speed -->"
CAPTION = "a dog tied to a red fire hydrant on the grass"


def judged(model: isthmus.DualEncoder, count: int) -> Judged:
    """Fresh pairs with random maps, a region of a quarter of the picture, and a wrong word."""
    opened = [Image.open(path).convert("RGB") for path in sorted((ROOT / "examples").glob("*.jpg"))]
    regions = np.zeros((count, 224, 224), dtype=bool)
    regions[:, 56:168, 56:168] = True
    start = CAPTION.index("dog")
    pairs = pairs_of(
        model,
        [opened[i % len(opened)] for i in range(count)],
        [CAPTION] * count,
        regions=regions,
        wrong=[(start, start + 3)] * count,
    )
    return trivial(pairs, "random")


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    model = isthmus.load(args.model)
    model.image.embed(judged(model, args.pairs).pairs.inputs["image"])  # warm
    rows = []
    for metric in METRICS.values():
        for side in metric.sides:
            taken = []
            for _ in range(3):
                fresh = judged(model, args.pairs)
                with counted() as passes:
                    began = time.perf_counter()
                    metric.function(fresh, side)
                    taken.append(time.perf_counter() - began)
            rows.append([metric.name, side, _rate(args.pairs / min(taken)), f"{passes['forward'] / args.pairs:g}"])
            print(*rows[-1], flush=True)
    machine = f"{platform.processor() or platform.machine()}, {model.name}, {args.pairs} pairs at once, best of three"
    table = grid_markdown(["metric", "side", "pairs a second", "passes a pair"], rows, caption=machine)
    if args.write:
        text = DOC.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        DOC.write_text(head + BEGIN + table + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
