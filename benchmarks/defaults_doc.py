"""Writes the tables and plots of docs/defaults.md from what benchmarks/defaults.py measured.

python benchmarks/defaults_doc.py --out out/defaults
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from isthmus.benchmark.table import grid_markdown

ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "defaults.md"
IMAGES = ROOT / "docs" / "images"
RESULTS = ROOT / "benchmarks" / "results"
CLOSED = ("mean", "floor", "zero")
MEASURES = {
    "image": ("insertion-deletion", "image", "cosine"),
    "image, margin": ("insertion-deletion", "image", "margin"),
    "text": ("insertion-deletion", "text", "cosine"),
    "text, margin": ("insertion-deletion", "text", "margin"),
    "pointing": ("pointing-game", "image", ""),
    "average precision": ("average-precision", "image", ""),
    "energy": ("energy-inside", "image", ""),
}
Row = dict[str, Any]


def cell(row: Row | None) -> str | None:
    if row is None:
        return None
    digits = 3 if row["unit"] == "" else 1
    return f"{row['mean']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def table(rows: Sequence[Row], dataset: str, measures: Sequence[str]) -> str:
    """A line a method, a column a measure, mean and interval over the pairs of one dataset."""
    own = {(r["method"], r["metric"], r["side"], r["variant"]): r for r in rows if r["dataset"] == dataset}
    labels = list(dict.fromkeys(key[0] for key in own))
    lines = [[label, *(cell(own.get((label, *MEASURES[m]))) for m in measures)] for label in labels]
    pairs = max(r["pairs"] for r in rows if r["dataset"] == dataset and r["metric"] == "insertion-deletion")
    regions = max((r["pairs"] for r in rows if r["dataset"] == dataset and r["metric"] == "pointing-game"), default=0)
    caption = f"{dataset}: {pairs} pairs" + (f", {regions} named regions." if regions else ".")
    return grid_markdown(["setting", *measures], lines, caption=caption)


def by_dataset(rows: Sequence[Row], measure: str) -> str:
    """A line a method, a column a dataset."""
    datasets = list(dict.fromkeys(r["dataset"] for r in rows))
    metric, side, variant = MEASURES[measure]
    own = {
        (r["method"], r["dataset"]): r
        for r in rows
        if (r["metric"], r["side"], r["variant"]) == (metric, side, variant)
    }
    labels = list(dict.fromkeys(key[0] for key in own))
    pairs = {d: max(r["pairs"] for r in own.values() if r["dataset"] == d) for d in datasets}
    lines = [[label, *(cell(own.get((label, d))) for d in datasets)] for label in labels]
    return grid_markdown(
        ["setting", *(f"{d} ({pairs[d]})" for d in datasets)], lines, caption=f"Insertion minus deletion, {measure}."
    )


def layers(rows: Sequence[Row]) -> Figure:
    """Insertion minus deletion by layer, a line a closed state."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, side in zip(figure.subplots(1, 2), ("image", "text"), strict=True):
        own = {r["method"]: r for r in rows if (r["metric"], r["side"], r["variant"]) == MEASURES[side]}
        for closed, colour in zip(CLOSED, ("#b2182b", "#2166ac", "#777777"), strict=True):
            found = [own[f"{closed} {k}"] for k in range(13)]
            axes.plot(range(13), [r["mean"] for r in found], color=colour, marker="o", markersize=3, label=closed)
            axes.fill_between(
                range(13), [r["low"] for r in found], [r["high"] for r in found], color=colour, alpha=0.15, lw=0
            )
        for name, style in (("paper", "--"), ("random", ":"), ("centre", "-.")):
            axes.axhline(own[name]["mean"], color="black", linestyle=style, linewidth=0.8, label=name)
        axes.set(title=f"{side}", xlabel="layer", ylabel="insertion − deletion, points", xticks=range(0, 13, 2))
    axes.legend(frameon=False, fontsize=8)
    return figure


def others(rows: Sequence[Row]) -> Figure:
    """Bars of all methods on COCO."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, measure in zip(figure.subplots(1, 3), ("image", "text", "pointing"), strict=True):
        own = [
            r
            for r in rows
            if r["dataset"] == "coco" and (r["metric"], r["side"], r["variant"]) == MEASURES[measure] and r["pairs"]
        ]
        own.sort(key=lambda r: r["mean"])
        trivial = ("random", "flat", "centre")
        colours = [
            "#bbbbbb" if r["method"] in trivial else "#b2182b" if "nib" in r["method"] else "#2166ac" for r in own
        ]
        error = [[r["mean"] - r["low"] for r in own], [r["high"] - r["mean"] for r in own]]
        axes.barh([r["method"] for r in own], [r["mean"] for r in own], xerr=error, color=colours, ecolor="#333333")
        axes.tick_params(labelsize=7)
        axes.set_title({"pointing": "pointing game"}.get(measure, f"insertion − deletion, {measure}"), fontsize=9)
    return figure


def replaced(text: str, mark: str, body: str) -> str:
    head, rest = text.split(f"<!-- {mark} -->\n")
    return f"{head}<!-- {mark} -->\n{body}<!-- /{mark} -->{rest.split(f'<!-- /{mark} -->')[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/defaults"))
    args = parser.parse_args()
    wanted = set(MEASURES.values())
    text = DOC.read_text(encoding="utf-8")
    for stage in ("grid", "more", "final", "others"):
        source = args.out / f"{stage}.json"
        kept = RESULTS / f"defaults-{stage}.json"
        if source.is_file():
            found = [r for r in json.loads(source.read_text()) if (r["metric"], r["side"], r["variant"]) in wanted]
            lines = ",\n".join(json.dumps(row) for row in found)
            kept.write_text(f"[{lines}]\n", encoding="utf-8")
        if not kept.is_file():
            continue
        rows = json.loads(kept.read_text(encoding="utf-8"))
        if stage == "final":
            body = (
                "\n".join(by_dataset(rows, m) for m in ("image", "text"))
                + "\n"
                + table(rows, "coco", ("pointing", "average precision", "energy"))
            )
        elif stage == "others":
            body = (
                "\n".join(by_dataset(rows, m) for m in ("image", "text")) + "\n" + table(rows, "coco", list(MEASURES))
            )
        else:
            body = table(rows, "coco", list(MEASURES) if stage == "grid" else list(MEASURES)[:4])
        text = replaced(text, stage, body)
        if stage in ("grid", "others"):
            figure = layers(rows) if stage == "grid" else others(rows)
            figure.savefig(IMAGES / f"defaults-{stage}.png", dpi=110, metadata={"Software": None})
    DOC.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
