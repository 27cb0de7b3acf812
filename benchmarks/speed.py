"""How fast NIB is, as ratios measured side by side in one run, and a machine to read them with.

    python benchmarks/speed.py              measures what benchmarks/results/speed-cpu.json lacks, then prints tables
    python benchmarks/speed.py --write      writes them into docs/speed.md too
    python benchmarks/speed.py --quick      a tiny model, in seconds: shows that all runs, says nothing of speed

`--parts ratio,floor,memory,scaling` chooses, `--again` measures anew, `--device cuda` measures a GPU. A full run on two
CPU cores takes about 25 minutes: let nothing else run.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import speed_doc
from speed_floor import share
from speed_machine import Results, described, has_bfloat16, machine
from speed_memory import in_process
from speed_models import SHAPES, clip, encoder_of, options_of, pairs_of
from speed_ratio import TITLES, choose, compare, contestants
from speed_scaling import rate

RESULTS = Path(__file__).resolve().parent / "results"
_PATIENCE = 120.0  # seconds of one ratio's rounds after which none begins
_DEAR = [name for name in TITLES if name != "default"]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        ratio: shape, numbers of pairs, pairs on which numbers of nodes are chosen, contestants.
        floor: shape, setting, number of pairs.
        memory: shape, setting, number of pairs, budget in MiB; 0 is the default.
        pairs, texts: numbers of pairs, and of texts of one picture, for scaling.
        scaled: the shape for scaling.
        repeats, limit: of each point, and seconds after which none begins.
    """

    ratio: list[tuple[str, tuple[int, ...], int, list[str]]]
    floor: list[tuple[str, str, int]]
    memory: list[tuple[str, str, int, int]]
    scaled: str
    pairs: tuple[int, ...] = (1, 4, 16, 64, 256)
    texts: tuple[int, ...] = (1, 10, 100, 1000)
    repeats: int = 3
    limit: float = 20.0


CPU = Plan(
    ratio=[("b32", (1, 32), 8, list(TITLES)), ("l14", (1,), 1, _DEAR)],
    floor=[("b32", "light", 32), ("b32", "default", 8), ("l14", "light", 2)],
    memory=[
        *(("b32", "default", count, 0) for count in (1, 8, 32)),
        *(("b32", "light", 32, budget) for budget in (256, 512, 1024)),
        *(("b32", "default", 8, budget) for budget in (256, 512, 1024)),
        ("l14", "light", 2, 2048),
    ],
    scaled="b32",
)
GPU = Plan(
    ratio=[("b32", (1, 32), 8, list(TITLES)), ("l14", (1, 32), 4, list(TITLES))],
    floor=[(shape, setting, 256) for shape in ("b32", "l14", "so400m") for setting in ("light", "default")],
    memory=[("b32", "default", count, budget) for count, budget in ((32, 0), (256, 0), (256, 2048), (256, 8192))],
    scaled="b32",
    pairs=(1, 4, 16, 64, 256, 1024),
)
QUICK = Plan(
    ratio=[("tiny", (1, 3), 2, list(TITLES))],
    floor=[("tiny", "light", 3)],
    memory=[("tiny", "default", 4, 16)],
    scaled="tiny",
    pairs=(1, 3),
    texts=(1, 3),
    repeats=1,
)


@dataclass
class Run:
    """One run of a plan: every point goes to the results as soon as it is there."""

    plan: Plan
    device: str
    results: Results
    _models: dict[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def dtypes(self) -> list[str]:
        return ["float32", "bfloat16"] if has_bfloat16(self.device) else ["float32"]

    def encoder(self, shape: str, dtype: str = "float32") -> Any:
        """The last model is kept: the points of one model follow each other."""
        if (shape, dtype) not in self._models:
            self._models.clear()
            model = clip(SHAPES[shape], dtype=dtype, device=self.device)
            self._models[shape, dtype] = encoder_of(model, SHAPES[shape])
        return self._models[shape, dtype]

    def ratio(self) -> None:
        for shape, counts, tried, names in self.plan.ratio:
            missing = [count for count in counts if self.results.missing(f"ratio/{shape}/{count}")]
            if not missing:
                continue
            self._models.clear()
            chosen = [name for name in names if has_bfloat16(self.device) or "bfloat16" not in name]
            running = list(contestants(SHAPES[shape], chosen, self.device))
            pairs = pairs_of(SHAPES[shape], max(*counts, tried), self.device)
            choose(running, pairs.first(tried))
            for count in missing:
                point = compare(running, pairs.first(count), self.device, repeats=self.plan.repeats, limit=_PATIENCE)
                self.results.put(f"ratio/{shape}/{count}", point)

    def floor(self) -> None:
        for shape, setting, count in self.plan.floor:
            for dtype in self.dtypes:
                key = f"floor/{shape}/{setting}/{dtype}"
                if self.results.missing(key):
                    encoder, sizes = self.encoder(shape, dtype), SHAPES[shape]
                    pairs, options = pairs_of(sizes, count, self.device), options_of(sizes, setting)
                    more = {"repeats": self.plan.repeats, "limit": self.plan.limit}
                    point = share(encoder, sizes, pairs, options, dtype=dtype, device=self.device, **more)
                    self.results.put(key, point)

    def memory(self) -> None:
        for shape, setting, count, budget in self.plan.memory:
            key = f"memory/{shape}/{setting}/{count}/{budget}"
            if self.results.missing(key):
                point = in_process(shape, "float32", self.device, count, setting, budget << 20)
                print(f"    {point['growth'] / 2**20:9,.0f} MiB", flush=True)
                self.results.put(key, point)

    def scaling(self) -> None:
        shape = self.plan.scaled
        for kind, counts in (("pairs", self.plan.pairs), ("texts", self.plan.texts)):
            for count in counts:
                key = f"scaling/{kind}/{count}"
                if self.results.missing(key):
                    encoder, sizes = self.encoder(shape), SHAPES[shape]
                    more = {"device": self.device, "repeats": self.plan.repeats, "limit": self.plan.limit}
                    pairs, options = pairs_of(sizes, count, self.device), options_of(sizes, "light")
                    self.results.put(key, rate(encoder, pairs, options, one_picture=kind == "texts", **more))


PARTS = ("ratio", "floor", "memory", "scaling")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"There is no part {min(unknown)}: choose among {', '.join(PARTS)}.")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("This machine has no GPU that torch can use: leave --device out.")
    where = arguments.device.partition(":")[0]
    name = "speed-quick" if arguments.quick else f"speed-{where}"
    path = arguments.out or (Path("out") if arguments.quick else RESULTS) / f"{name}.json"
    results = Results(path, machine(arguments.device), again=arguments.again)
    print(described(results.known), flush=True)
    plan = QUICK if arguments.quick else CPU if where == "cpu" else GPU
    run = Run(plan, arguments.device, results)
    for part in parts:
        getattr(run, part)()
    print(speed_doc.tables(results.known, results.points))
    if arguments.write:
        speed_doc.write(where, results.known, results.points)


if __name__ == "__main__":
    main()
