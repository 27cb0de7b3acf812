"""Seconds a pair of every method, at batch 1 and 32, side by side in one run; and of prompt-free maps.

    python benchmarks/methods.py                       all methods, default options, the bundled model
    python benchmarks/methods.py --methods m2ib,iba    some of them, and nib, to which ratios are taken
    python benchmarks/methods.py --write               also puts the rows into benchmarks/results/methods.json, in place
                                                       of earlier ones of the same methods, and that into docs/speed.md

Pictures are decoded and the model is warm. The fastest of up to five calls counts, as many as fit into 20 seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import isthmus
from isthmus.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results" / "methods.json"
MARK = "<!-- methods -->"
BATCHES = (1, 32)
TEXTS = ("a dog tied to a fire hydrant", "a bear walks over the green grass", "two men ride horses along a beach")
PROMPTS = (1, 1000)

Row = dict[str, Any]


def pairs(count: int) -> tuple[list[Image.Image], list[str]]:
    """The pictures of examples/ in turn, with captions of seven words."""
    opened = [Image.open(path).convert("RGB") for path in sorted((ROOT / "examples").glob("*.jpg"))]
    return [opened[i % len(opened)] for i in range(count)], [TEXTS[i % len(TEXTS)] for i in range(count)]


def seconds(call: Callable[[], object]) -> float:
    """Time of a call that has run before: the fastest, for all that disturbs a call makes it slower."""
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
        if sum(taken) > 20:
            break
    return min(taken)


def measure(model: isthmus.DualEncoder, method: str) -> tuple[list[float], Mapping[str, float]]:
    """Seconds a pair at each batch, and passes of a pair."""
    (image,), (text,) = pairs(1)
    first = isthmus.explain(model, image, text, method=method)  # it also pays for what is made once for a model
    assert isinstance(first, isthmus.Explanation)
    found = []
    for batch in BATCHES:
        images, texts = pairs(batch)

        def call(images: list[Image.Image] = images, texts: list[str] = texts) -> object:
            return isthmus.explain(model, images, texts, method=method, batch_size=max(BATCHES))

        found.append(seconds(call) / batch)
    return found, first.provenance.passes


def rows_of(model: isthmus.DualEncoder, names: Sequence[str]) -> dict[str, Row]:
    """A row for each method and for NIB; ratios are to NIB of the same run."""
    rows: dict[str, Row] = {}
    for name in dict.fromkeys(["nib", *names]):
        times, passes = measure(model, name)
        cost = f"{passes['forward']:.0f} + {passes['backward']:.0f}"
        ratio = times[-1] / rows["nib"]["seconds"][-1] if rows else 1.0
        rows[name] = {"passes": cost, "seconds": times, "ratio": ratio}
        print(f"{name:<22}{cost:>14}  " + "  ".join(f"{one:9.4f} s" for one in times), flush=True)
    return rows


def table_of(rows: Mapping[str, Row]) -> list[str]:
    """The fastest first."""
    lines = ["| method | passes of a pair | s a pair, batch 1 | s a pair, batch 32 | times `nib` at 32 |"]
    lines.append("|---|---|---|---|---|")
    for name, row in sorted(rows.items(), key=lambda item: item[1]["ratio"]):
        times = " | ".join(f"{one:.3f}" for one in row["seconds"])
        lines.append(f"| `{name}` | {row['passes']} | {times} | {row['ratio']:.2f} |")
    return lines


def prompts_table(model: isthmus.DualEncoder) -> list[str]:
    """What keeping the vectors of a picture costs, and then maps of one prompt and of many."""
    picture = pairs(1)[0][0]
    made = seconds(lambda: isthmus.prompt_free(model, picture, steps=5))
    free = isthmus.prompt_free(model, picture, steps=5)
    prompts = torch.nn.functional.normalize(torch.randn(max(PROMPTS), free.open.shape[1]), dim=-1)
    lines = ["| prompt-free maps of one picture | seconds |", "|---|---|", f"| vectors, 5 nodes | {made:.3f} |"]
    for count in PROMPTS:
        taken = seconds(lambda count=count: free.maps(prompts[:count]))  # type: ignore[misc]
        lines.append(f"| maps of {count:,} embedded prompt{'s' * (count > 1)} | {taken:.5f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default=",".join(sorted(METHODS)))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    model = isthmus.load("mini", device="cpu")
    rows, prompts = rows_of(model, arguments.methods.split(",")), prompts_table(model)
    if arguments.write:
        earlier = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        rows = {name: row for name, row in {**earlier, **rows}.items() if name in METHODS}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    machine = f"{platform.machine()} with {torch.get_num_threads()} cores"
    head = f"Model `mini` {model.revision}, float32, torch {torch.__version__}, {machine}, texts of 7 words."
    table = "\n".join([head, "", *table_of(rows), "", *prompts])
    print(table)
    if arguments.write:
        before, _, _ = DOC.read_text(encoding="utf-8").partition(MARK)
        DOC.write_text(f"{before}{MARK}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
