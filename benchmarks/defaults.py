"""Which layer, closed state, rule and use of special tokens is the most faithful: the study behind NIB's defaults.

    python benchmarks/defaults.py grid  --data ../shared/data --out out/defaults   # layers and closed states
    python benchmarks/defaults.py more  --data ../shared/data --out out/defaults   # rules, steps, special, layer sets
    python benchmarks/defaults.py final --data ../shared/data --out out/defaults   # what is left, beside trivial maps
    python benchmarks/defaults.py others --data ../shared/data --out out/defaults  # NIB beside other methods
    python benchmarks/defaults.py texts --data ../shared/data --out out/defaults   # closed states of texts, paired

Insertion minus deletion is that of the cosine, in points, with parts replaced by the mean; pointing and average
precision are those of `a photo of a NAME` on COCO's masks. Steps of the curves come in groups (`--points`).
COCO gets every setting; on the larger sets `grid` and `more` leave out every other one of those that it shows to lose.
Interrupted, the same command goes on; `--datasets` splits a stage over processes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import isthmus
from isthmus.benchmark.plan import Plan, metrics_of
from isthmus.benchmark.run import run
from isthmus.benchmark.spec import Spec
from isthmus.benchmark.summary import paired_tests_of, summarise
from isthmus.datasets import open_dataset, sampled

LAYERS = range(13)
SIZES: dict[str, int | None] = {"coco": None, "flickr8k": None, "cc": 500, "tinyimagenet": 500, "rsicd": None}
REGION_SAMPLES = 60
SETS: dict[str, list[int]] = {
    "0,6": [0, 6],
    "3,6,9": [3, 6, 9],
    "0,3,6,9": [0, 3, 6, 9],
    "6,9,11": [6, 9, 11],
    "10,11": [10, 11],
    "0..11": list(range(12)),
}
FEW_SETS = ("0,6", "0,3,6,9", "10,11")
TRIVIAL = (Spec("random", "random"), Spec("flat", "flat"), Spec("centre", "centre"))
PAPER = Spec("paper", "nib", preset="paper")
OTHERS = (
    "integrated-gradients",
    "gradcam",
    "grad-eclip",
    "chefer",
    "legrad",
    "attnlrp",
    "attention-gradient",
    "multilayer-nib",
    "occlusion",
)


def _nib(label: str, **options: Any) -> Spec:
    return Spec(label, "nib", {"special": "closed", **options})


def grid(dataset: str) -> tuple[Spec, ...]:
    """Every layer on either side under each closed state; zero with the rule that its steep start needs."""
    few = LAYERS if dataset == "coco" else LAYERS[::2]
    found = [_nib(f"mean {k}", layer=k, closed="mean") for k in LAYERS]
    found += [_nib(f"floor {k}", layer=k, closed="floor") for k in few]
    found += [_nib(f"zero {k}", layer=k, closed="zero", rule="gauss-legendre-sinh") for k in few]
    return (*TRIVIAL, *found, PAPER) if dataset == "coco" else tuple(found)


def more(dataset: str, layers: Sequence[int]) -> tuple[Spec, ...]:
    """Rules, steps, special tokens and layer sets at a layer of each side."""
    every = dataset == "coco"
    layer = dict(zip(("image", "text"), layers, strict=True))
    rules = [("right", 10), ("gauss-legendre", 5), ("gauss-legendre-cubic", 3), ("gauss-legendre-cubic", 20)]
    if every:
        rules += [("right", 20), ("gauss-legendre", 10), ("gauss-legendre-cubic", 5), ("gauss-legendre-cubic", 10)]
    found = [_nib(f"{rule} {steps}", layer=layer, rule=rule, steps=steps) for rule, steps in sorted(rules)]
    if every:
        found.append(_nib("special open", layer=layer, special="open"))
    found += [
        Spec(f"layers {name}", "multilayer-nib", {"layers": own})
        for name, own in SETS.items()
        if every or name in FEW_SETS
    ]
    return (*TRIVIAL, *found) if every else tuple(found)


def final() -> tuple[Spec, ...]:
    """The settings that the other stages leave, beside the paper's preset."""
    found = [
        _nib("mean 0", layer=0, closed="mean"),
        _nib("mean 0, special open", layer=0, closed="mean", special="open"),
    ]
    return (*TRIVIAL, *found, PAPER)


def others() -> tuple[Spec, ...]:
    """NIB with special positions closed and open beside the methods that it is compared with."""
    return (
        *TRIVIAL,
        _nib("nib closed", special="closed"),
        _nib("nib open", special="open"),
        Spec("nib paper", "nib", preset="paper"),
        *(Spec(m, m) for m in OTHERS),
    )


def texts() -> tuple[Spec, ...]:
    """The closed states at layer 0, between which only a paired test can tell on texts."""
    zero = _nib("zero 0", layer=0, closed="zero", rule="gauss-legendre-sinh")
    return (_nib("mean 0", layer=0, closed="mean"), zero, _nib("floor 0", layer=0, closed="floor"))


def specs_of(stage: str, dataset: str, layers: Sequence[int]) -> tuple[Spec, ...]:
    """What a stage measures on a dataset."""
    if stage == "grid":
        return grid(dataset)
    if stage == "more":
        return more(dataset, layers)
    if stage == "texts":
        return texts()
    return final() if stage == "final" else others()


def evaluated(
    args: argparse.Namespace, specs: tuple[Spec, ...], dataset: str, limit: int | None
) -> list[dict[str, Any]]:
    """Mean and interval of each spec on one dataset; paired differences from the mean in the stage of texts."""
    model = isthmus.load(args.model, dtype=args.dtype)
    samples, _ = sampled(open_dataset(args.data / f"{dataset}.json"), limit=limit)
    found = []
    parts = [("caption", samples, ("insertion", "deletion", "insertion-deletion"))]
    if dataset == "coco" and args.stage not in ("more", "texts"):
        regions = samples[:REGION_SAMPLES]
        parts.append(("region", regions, ("pointing-game", "average-precision", "energy-inside")))
    for name, part, metrics in parts:
        plan = Plan(
            model,
            dataset,
            part,
            specs,
            metrics_of(metrics),
            metric_options={m: {"points": args.points} for m in metrics} if name == "caption" else {},
            batch_size=32,
            sides=("text",) if args.stage == "texts" else ("image", "text"),
        )
        outcome = run(plan, args.out / f"{args.stage}-{dataset}-{name}", progress=_told)
        if args.stage == "texts":
            found += [vars(row) for row in paired_tests_of(outcome.rows, reference="mean 0")]
        else:
            found += [vars(row) for row in summarise(outcome.rows)]
        for label, reason in outcome.refused.items():
            print(f"{label}: {reason}", flush=True)
    return found


def _told(done: int, total: int, label: str) -> None:
    if done % 50 == 0:
        print(f"{done}/{total} {label}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("grid", "more", "final", "others", "texts"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/defaults"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--datasets", nargs="+", choices=SIZES, help="else all; for others, two")
    parser.add_argument("--layers", nargs=2, type=int, default=(0, 0), help="of picture and text, for more")
    args = parser.parse_args()
    for dataset in args.datasets or (("coco", "rsicd") if args.stage == "others" else SIZES):
        found = evaluated(args, specs_of(args.stage, dataset, args.layers), dataset, SIZES[dataset])
        path = args.out / f"{args.stage}-{dataset}.json"
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(path, flush=True)


if __name__ == "__main__":
    main()
