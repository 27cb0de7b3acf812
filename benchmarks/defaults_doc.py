"""Writes the tables and plots of docs/defaults.md from what benchmarks/defaults.py measured.

python benchmarks/defaults_doc.py --out out/defaults
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from defaults import SIZES
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
    metric, side, variant = MEASURES[measure]
    own = {
        (r["method"], r["dataset"]): r
        for r in rows
        if (r["metric"], r["side"], r["variant"]) == (metric, side, variant)
    }
    datasets = [name for name in SIZES if any(key[1] == name for key in own)]
    labels = list(dict.fromkeys(key[0] for key in own))
    pairs = {d: max(r["pairs"] for r in own.values() if r["dataset"] == d) for d in datasets}
    lines = [[label, *(cell(own.get((label, d))) for d in datasets)] for label in labels]
    return grid_markdown(
        ["setting", *(f"{d} ({pairs[d]})" for d in datasets)], lines, caption=f"Insertion minus deletion, {measure}."
    )


def layers(rows: Sequence[Row]) -> Figure:
    """Insertion minus deletion by layer, a line a closed state, a panel a dataset and side."""
    datasets = [name for name in SIZES if any(r["dataset"] == name for r in rows)]
    figure = Figure(figsize=(2.9 * len(datasets), 5), layout="constrained")
    for line, side in zip(figure.subplots(2, len(datasets), sharey="row"), ("image", "text"), strict=True):
        for axes, dataset in zip(line, datasets, strict=True):
            _layers(axes, [r for r in rows if r["dataset"] == dataset], side)
            axes.set_title(f"{dataset}, {side}", fontsize=9)
        line[0].set_ylabel("insertion − deletion, points")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return figure


def _layers(axes: Axes, rows: Sequence[Row], side: str) -> None:
    own = {r["method"]: r for r in rows if (r["metric"], r["side"], r["variant"]) == MEASURES[side]}
    for closed, colour in zip(CLOSED, ("#b2182b", "#2166ac", "#777777"), strict=True):
        there = [k for k in range(13) if f"{closed} {k}" in own]
        found = [own[f"{closed} {k}"] for k in there]
        axes.plot(there, [r["mean"] for r in found], color=colour, marker="o", markersize=3, label=closed)
        low, high = [r["low"] for r in found], [r["high"] for r in found]
        axes.fill_between(there, low, high, color=colour, alpha=0.15, lw=0)
    for name, style in (("paper", "--"), ("random", ":"), ("centre", "-.")):
        axes.axhline(own[name]["mean"], color="black", linestyle=style, linewidth=0.8, label=name)
    axes.set(xlabel="layer", xticks=range(0, 13, 2))


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


def measured(stage: str, out: Path) -> list[Row]:
    """The rows of a stage: those that are kept, but where a dataset was measured anew."""
    kept = RESULTS / f"defaults-{stage}.json"
    rows: list[Row] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []
    wanted = set(MEASURES.values())
    for dataset in SIZES:
        source = out / f"{stage}-{dataset}.json"
        if source.is_file():
            found = [r for r in json.loads(source.read_text()) if (r["metric"], r["side"], r["variant"]) in wanted]
            rows = [r for r in rows if r["dataset"] != dataset] + found
    kept.write_text("[" + ",\n".join(json.dumps(row) for row in rows) + "]\n", encoding="utf-8")
    return rows


def lent(rows: Sequence[Row], final: Sequence[Row], names: dict[str, str]) -> list[Row]:
    """Rows of a stage, with those of `final` under other names for datasets on which the stage left them out."""
    there = {(r["method"], r["dataset"]) for r in rows}
    more = [r | {"method": names[r["method"]]} for r in final if r["method"] in names]
    return [*rows, *(r for r in more if (r["method"], r["dataset"]) not in there)]


def paired(rows: Sequence[Row]) -> str:
    """A line a closed state of texts, a column a dataset: what the mean gains on it over the same pairs."""
    rows = [r for r in rows if (r["metric"], r["side"], r["variant"]) == MEASURES["text"]]
    datasets = [name for name in SIZES if any(r["dataset"] == name for r in rows)]
    own = {(r["second"] if r["first"] == "mean 0" else r["first"], r["dataset"]): r for r in rows}
    lines: list[list[str | None]] = []
    for other in ("zero 0", "floor 0"):
        cells: list[str | None] = [f"mean less {other.removesuffix(' 0')}"]
        for dataset in datasets:
            row = own[other, dataset]
            sign = 1 if row["first"] == "mean 0" else -1
            low, high = sorted((sign * row["low"], sign * row["high"]))
            p = "p below 0.001" if row["p_corrected"] < 0.001 else f"p = {row['p_corrected']:.3f}"
            cells.append(f"{sign * row['difference']:.1f} [{low:.1f}, {high:.1f}], {p}")
        lines.append(cells)
    caption = "Insertion minus deletion, text, at layer 0: paired differences, p by Holm's correction."
    return grid_markdown(["setting", *datasets], lines, caption=caption)


def body_of(stage: str, rows: Sequence[Row]) -> str:
    if stage == "texts":
        return paired(rows)
    found = [by_dataset(rows, m) for m in ("image", "text")]
    local = ["pointing", "average precision", "energy"]
    margins = ["image, margin", "text, margin"]
    if stage != "more":
        found.append(table(rows, "coco", local if stage == "final" else margins + local))
    return "\n".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/defaults"))
    args = parser.parse_args()
    rows = {stage: measured(stage, args.out) for stage in ("grid", "more", "final", "others", "texts")}
    trivial = {name: name for name in ("random", "flat", "centre")}
    rows["grid"] = lent(rows["grid"], rows["final"], trivial | {"paper": "paper"})
    same = {"mean 0": "gauss-legendre-cubic 10", "mean 0, special open": "special open"}
    rows["more"] = lent(rows["more"], rows["final"], trivial | same)
    text = DOC.read_text(encoding="utf-8")
    for stage, own in rows.items():
        text = replaced(text, stage, body_of(stage, own))
    for stage, draw in (("grid", layers), ("others", others)):
        draw(rows[stage]).savefig(IMAGES / f"defaults-{stage}.png", dpi=110, metadata={"Software": None})
    DOC.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
