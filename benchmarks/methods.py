"""Seconds a pair of every method, at batch 1 and 32, side by side in one run; and of prompt-free maps.

    python benchmarks/methods.py                       all methods, default options, the bundled model
    python benchmarks/methods.py --methods nib,m2ib    some of them
    python benchmarks/methods.py --write               also writes the tables into docs/speed.md

Pictures are decoded and the model is warm. The median of up to five calls is taken, as many as fit into 20 seconds.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from PIL import Image

import isthmus
from isthmus.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "speed.md"
MARK = "<!-- methods -->"
BATCHES = (1, 32)
TEXTS = ("a dog tied to a fire hydrant", "a bear walks over the green grass", "two men ride horses along a beach")
PROMPTS = (1, 1000)


def pairs(count: int) -> tuple[list[Image.Image], list[str]]:
    """The pictures of examples/ in turn, with captions of seven words."""
    opened = [Image.open(path).convert("RGB") for path in sorted((ROOT / "examples").glob("*.jpg"))]
    return [opened[i % len(opened)] for i in range(count)], [TEXTS[i % len(TEXTS)] for i in range(count)]


def seconds(call: Callable[[], object]) -> float:
    """Median time of a call that has run before."""
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
        if sum(taken) > 20:
            break
    return statistics.median(taken)


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


def methods_table(model: isthmus.DualEncoder, names: list[str]) -> list[str]:
    """A row for each method, the fastest first; ratios are to NIB of the same run."""
    rows = []
    for name in names:
        times, passes = measure(model, name)
        rows.append((times, name, f"{passes['forward']:.0f} + {passes['backward']:.0f}"))
        print(f"{name:<22}{rows[-1][2]:>14}  " + "  ".join(f"{one:9.4f} s" for one in times), flush=True)
    base = next((times[-1] for times, name, _ in rows if name == "nib"), None)
    lines = ["| method | passes of a pair | s a pair, batch 1 | s a pair, batch 32 | times `nib` at 32 |"]
    lines.append("|---|---|---|---|---|")
    for times, name, passes in sorted(rows, key=lambda row: row[0][-1]):
        ratio = f"{times[-1] / base:.2f}" if base else ""
        lines.append(f"| `{name}` | {passes} | " + " | ".join(f"{one:.3f}" for one in times) + f" | {ratio} |")
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
    cores = torch.get_num_threads()
    head = (
        f"Model `mini` {model.revision}, float32, torch {torch.__version__}, {platform.machine()} with {cores} cores."
    )
    lines = [head, "", *methods_table(model, arguments.methods.split(",")), "", *prompts_table(model)]
    print("\n".join(lines))
    if arguments.write:
        before, _, _ = DOC.read_text(encoding="utf-8").partition(MARK)
        DOC.write_text(before + MARK + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
