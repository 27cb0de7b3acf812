"""On a GPU: whether any method leaks device memory, and whether its maps are those of the CPU.

python benchmarks/speed_device.py                   1,000 calls of every method on a tiny model
python benchmarks/speed.py --device cuda --write    the ratios, on a GPU
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

import isthmus
from isthmus.errors import IsthmusError
from isthmus.methods import METHODS
from speed_models import SHAPES, clip, encoder_of, pairs_of

# What makes the dear methods cheap enough for a thousand calls; the work per call says nothing about a leak.
CHEAP: dict[str, dict[str, Any]] = {
    "integrated-gradients": {"steps": 6},
    "agi": {"steps": 3},
    "rise": {"samples": 12},
    "lime": {"samples": 12},
    "shapley": {"samples": 8},
    "banzhaf": {"samples": {"image": 256, "text": 150}},
    "m2ib": {"steps": 2, "copies": 2},
    "iba": {"steps": 2, "copies": 2},
}


def leaked(call: Callable[[], object], used: Callable[[], int], calls: int) -> int:
    """Bytes that `calls` calls left behind, beyond what the first three did."""
    for _ in range(3):
        call()
    gc.collect()
    before = used()
    for _ in range(calls):
        call()
    gc.collect()
    return used() - before


def apart(one: isthmus.Explanation, other: isthmus.Explanation) -> float:
    """The largest difference of two explanations' scores, as a share of the largest score, over both sides."""
    shares = []
    for mine, theirs in zip(_scores(one), _scores(other), strict=True):
        shares.append(float((mine - theirs).abs().max() / mine.abs().max().clamp_min(1e-30)))
    return max(shares)


def _scores(one: isthmus.Explanation) -> Iterator[torch.Tensor]:
    if one.image is not None:
        yield torch.from_numpy(one.image.scores.copy()).double()
    if one.text is not None:
        yield torch.tensor([token.score for token in one.text.tokens], dtype=torch.float64)


def check(
    device: str, used: Callable[[], int], calls: int, names: Sequence[str] = ()
) -> Iterator[tuple[str, int | None, float | None, str]]:
    """Of every method, or those named: bytes left behind, how far its maps are from the CPU's, or why it refuses.

    Random methods draw other numbers on another device, so their maps are not compared.
    """
    sizes = SHAPES["tiny"]
    home = encoder_of(clip(sizes, attention="eager"), sizes)
    there = encoder_of(clip(sizes, attention="eager", device=device), sizes)
    pairs = pairs_of(sizes, 2)
    for name in names or METHODS:
        method = METHODS[name]
        options = {"method": name, **CHEAP.get(name, {})}

        def call(model: Any = there, options: dict[str, Any] = options) -> Any:
            return isthmus.explain(model, pairs.pictures, pairs.texts, **options)

        try:
            far = None if method.random else max(apart(a, b) for a, b in zip(call(home), call(), strict=True))
        except IsthmusError as error:
            yield name, None, None, str(error)
            continue
        yield name, leaked(call, used, calls), far, ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("This machine has no GPU that torch can use: there is nothing to measure.")
        return
    bad = []
    for name, bytes_left, far, refused in check("cuda", torch.cuda.memory_allocated, arguments.calls):
        shown = refused or f"{bytes_left:,} bytes left, maps apart by {'-' if far is None else f'{far:.1e}'}"
        print(f"{name:<22}{shown}", flush=True)
        bad += [name] if (bytes_left or 0) > 0 or (far or 0.0) > 1e-3 else []
    if bad:
        sys.exit(f"Memory is left behind, or maps differ: {', '.join(bad)}.")


if __name__ == "__main__":
    main()
