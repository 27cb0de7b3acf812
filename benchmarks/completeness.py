"""How complete NIB's attributions are, by closed state and rule, on 100 real pairs and the bundled model.

python benchmarks/completeness.py            prints the table of docs/completeness.md
python benchmarks/completeness.py --write    writes it there
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

import isthmus
from pairs import SHARED, hundred_pairs

DOC = Path(__file__).resolve().parents[1] / "docs" / "completeness.md"
MARK = "<!-- table -->"
FIXED = [(rule, steps) for steps in (10, 32) for rule in ("right", "gauss-legendre", "gauss-legendre-cubic")]
FIXED += [("gauss-legendre-sinh", 32), ("gauss-legendre-sinh", 64)]


def measure(model: isthmus.DualEncoder, closed: str, layer: int, **options: object) -> dict[str, dict[str, float]]:
    """Median and worst relative delta, and nodes, of both sides over the pairs."""
    pictures, texts = zip(*hundred_pairs(), strict=True)
    options = {"special": "closed", **options}
    found = isthmus.explain(model, list(pictures), list(texts), closed=closed, layer=layer, truncate=True, **options)
    result = {}
    for side in ("image", "text"):
        deltas = [getattr(one, side).completeness.relative_delta for one in found]
        nodes = [getattr(one, side).options["steps"] for one in found]
        result[side] = {
            "median": statistics.median(deltas),
            "worst": max(deltas),
            "over": sum(delta > 0.01 for delta in deltas),
            "nodes": statistics.median(nodes),
            "most": max(nodes),
        }
    return result


def row(closed: str, rule: str, figures: dict[str, dict[str, float]]) -> str:
    cells = [closed, rule]
    for side in ("image", "text"):
        f = figures[side]
        nodes = f"{f['nodes']:.0f}" if f["nodes"] == f["most"] else f"{f['nodes']:.0f} ({f['most']:.0f})"
        cells += [nodes, f"{100 * f['median']:.2f} %", f"{100 * f['worst']:.2f} %", f"{f['over']:.0f}"]
    return "| " + " | ".join(cells) + " |"


def table_of(model: isthmus.DualEncoder, layer: int) -> Iterator[str]:
    yield from (
        "",
        f"### Layer {layer} of {model.image.depth}",
        "",
        "| closed | rule | image: nodes | median | worst | over 1 % | text: nodes | median | worst | over 1 % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    )
    for closed in ("zero", "floor", "mean"):
        for rule, steps in FIXED:
            if "sinh" not in rule or closed == "zero":
                yield row(closed, rule, measure(model, closed, layer, rule=rule, steps=steps))
        yield row(closed, "`auto`, 1 %", measure(model, closed, layer, steps="auto", tolerance=0.01))


def main() -> None:
    if not SHARED.is_dir():
        sys.exit(f"The 100 pairs are in the team's shared data, which is not at {SHARED}.")
    model = isthmus.load("mini", device="cpu")
    lines = [f"Model `mini` {model.revision}, float32 on the CPU, torch {torch.__version__}."]
    for layer in (0, 9):
        for line in table_of(model, layer):
            print(line, flush=True)
            lines.append(line)
    table = "\n".join(lines)
    if "--write" in sys.argv:
        head, _, _ = DOC.read_text(encoding="utf-8").partition(MARK)
        DOC.write_text(f"{head}{MARK}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
