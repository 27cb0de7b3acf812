"""The engines on one GPU: the bare compute loop, the local engine, and Ray with one worker on the GPU.

    PYTHONPATH=src python benchmarks/scale_gpu.py --out scale-gpu.json

CLIPs of the sizes of ViT-B/32 and ViT-L/14 with random weights, thousands of random JPEG pictures with a caption each.
How many pairs an engine gets follows from the loop's rate, so that each runs for `--seconds`. The GPU's utilisation is
read ten times a second; figures are of the time between the first piece that is done and the last one.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from scale_memory import Memory
from speed_machine import described, machine
from speed_models import SHAPES, TOKENIZER, captions, clip, options_of

SIDES = ((320, 240), (240, 320), (400, 300), (300, 300))


class Utilisation(threading.Thread):
    """Reads how busy the GPU is, and how much of its memory is taken; nothing where there is no GPU or no pynvml."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.points: list[tuple[float, int, int]] = []
        self._over = threading.Event()
        self._read = self._reader()

    def __enter__(self) -> Utilisation:
        if self._read is not None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._read is not None:
            self.join()

    def _reader(self) -> Callable[[], tuple[int, int]] | None:
        if not torch.cuda.is_available():
            return None
        try:
            import pynvml

            pynvml.nvmlInit()
            card = pynvml.nvmlDeviceGetHandleByIndex(0)

            def read() -> tuple[int, int]:
                return (
                    int(pynvml.nvmlDeviceGetUtilizationRates(card).gpu),
                    int(pynvml.nvmlDeviceGetMemoryInfo(card).used),
                )

            read()
        except Exception as error:  # a figure is missing then, and no run is lost
            print(f"the GPU's utilisation cannot be read: {error}", file=sys.stderr)
            return None
        return read

    def run(self) -> None:
        assert self._read is not None
        while not self._over.wait(0.1):
            self.points.append((time.monotonic(), *self._read()))

    def between(self, begin: float, end: float) -> dict[str, Any]:
        """Percent, of the readings between two times; MiB of the GPU at most, over all."""
        busy = [percent for at, percent, _ in self.points if begin <= at <= end]
        if not busy:
            return {}
        most = max(used for _, _, used in self.points) >> 20
        return {
            "utilisation": statistics.mean(busy),
            "busy_share": sum(percent >= 90 for percent in busy) / len(busy),
            "gpu_memory": most,
        }


class Clock:
    """When how many pairs were done."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []

    def __call__(self, progress: Any) -> None:
        if progress.pairs and (not self.points or progress.pairs > self.points[-1][1]):
            self.points.append((time.monotonic(), progress.pairs))

    @property
    def span(self) -> tuple[float, float]:
        return self.points[0][0], self.points[-1][0]

    def rate(self) -> float:
        begin, end = self.span
        return (self.points[-1][1] - self.points[0][1]) / max(1e-9, end - begin)


def save_model(name: str, folder: Path) -> Path:
    """A model's folder, as `isthmus.load` takes it."""
    from transformers import AutoTokenizer, CLIPImageProcessor

    shape, path = SHAPES[name], folder / name
    clip(shape).save_pretrained(path)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(path)
    crop = {"height": shape.pixels, "width": shape.pixels}
    CLIPImageProcessor(size={"shortest_edge": shape.pixels}, crop_size=crop).save_pretrained(path)
    return path


def jpegs(count: int) -> list[bytes]:
    """Smooth random pictures."""
    from PIL import Image

    found = []
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        sink = io.BytesIO()
        coarse.resize(SIDES[number % len(SIDES)], Image.Resampling.BICUBIC).save(sink, "JPEG", quality=90)
        found.append(sink.getvalue())
    return found


def save_input(folder: Path, pictures: list[bytes], count: int) -> Path:
    """Four Parquet files."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    folder.mkdir(parents=True)
    texts = captions(count)
    rows = [{"id": f"{n}", "image": pictures[n % len(pictures)], "caption": texts[n]} for n in range(count)]
    for part in range(4):
        parquet.write_table(arrow.Table.from_pylist(rows[part::4]), folder / f"{part}.parquet", row_group_size=256)
    return folder


def bare(model: Any, pictures: list[bytes], seconds: float, options: dict[str, Any], batch: int) -> dict[str, Any]:
    """`isthmus.explain` on open pictures, batch after batch, for some seconds."""
    from PIL import Image

    import isthmus

    opened = [Image.open(io.BytesIO(one)).convert("RGB") for one in pictures[: 4 * batch]]
    texts = captions(len(opened))
    with Utilisation() as busy:
        for _ in range(2):  # warm
            isthmus.explain(model, opened[:batch], texts[:batch], batch_size=batch, **options)
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            isthmus.explain(model, [one.copy() for one in opened], texts, batch_size=batch, **options)
            count += len(opened)
        ended = time.monotonic()
    return {"pairs": count, "rate": count / (ended - began), **busy.between(began, ended)}


def mapped(source: Path, out: Path, options: dict[str, Any], pieces: int, **more: Any) -> dict[str, Any]:
    """One engine."""
    import isthmus.scale.mapping as mapping

    clock, began = Clock(), time.monotonic()
    with Utilisation() as busy, Memory() as memory:
        done = mapping.map(
            source,
            out,
            image_column="image",
            text_columns=["caption"],
            piece_size=pieces,
            progress=clock,
            **options,
            **more,
        )
    whole = time.monotonic() - began
    assert done.failures == 0, done
    found = {"pairs": done.rows, "rate": clock.rate(), "whole": done.rows / whole, "memory": memory.peaks}
    return {**found, **busy.between(*clock.span)}


def measure(name: str, setting: str, dtype: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A model through all three."""
    import isthmus

    told: dict[str, Any] = {}
    path = save_model(name, folder) if not (folder / name).is_dir() else folder / name
    method = options_of(SHAPES[name], setting)
    model = isthmus.load(str(path), device=options.device, dtype=dtype)
    pictures = jpegs(max(4 * options.batch, options.pictures))
    told["bare"] = _said(name, "bare", bare(model, pictures, options.seconds / 2, method, options.batch))
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    pieces = 2 * options.batch
    count = int(min(options.most, max(6 * pieces, told["bare"]["rate"] * options.seconds)))
    source = save_input(folder / f"in-{name}-{setting}-{dtype}", pictures, count)
    more = {"model": str(path), "device": options.device, "dtype": dtype, "batch_size": options.batch, **method}
    for engine in options.engines.split(","):
        out = folder / f"{engine}-{name}-{setting}-{dtype}"
        try:
            told[engine] = _said(name, engine, mapped(source, out, more, pieces, engine=engine))
        except Exception as error:  # the other figures are kept
            told[engine] = _said(name, engine, {"error": f"{type(error).__name__}: {error}"})
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    shutil.rmtree(source)
    return told


def _said(name: str, engine: str, point: dict[str, Any]) -> dict[str, Any]:
    print(f"{name} {engine}: {json.dumps(point)}", flush=True)
    return point


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="b32,l14")
    parser.add_argument("--setting", default="default", choices=("default", "light"))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--engines", default="local,ray")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=16.0, help="of each engine, about")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=1000, help="different ones")
    parser.add_argument("--most", type=int, default=20_000, help="pairs of an engine")
    parser.add_argument("--out", type=Path, default=Path("scale-gpu.json"))
    options = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    known, points = machine(options.device), dict[str, Any]()
    print(described(known), flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        for model in options.models.split(","):
            for engine, point in measure(model, options.setting, options.dtype, options, Path(name)).items():
                points[f"{model}/{options.setting}/{options.dtype}/{engine}"] = point
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"machine": known, "points": points}, indent=1) + "\n", encoding="utf-8")
    print(f"{time.monotonic() - began:.0f} seconds in all", flush=True)


if __name__ == "__main__":
    main()
