"""Many pairs: the bare compute loop, the local engine and a Ray cluster of two machines, side by side.

    python benchmarks/scale.py                         20,000 pairs; takes up what results/scale.json lacks
    python benchmarks/scale.py --write                 the same, and the tables of docs/scale-cluster.md
    python benchmarks/scale.py --pairs 400 --only ray  a part, with figures of its own number of pairs

The pairs are pictures of the team's shared data, repeated with ids of their own. Each part is a process of its own,
whose memory is read twice a second, process by process, without what they share. Cores are as many as the machine has:
the loop and the local engine compute on all, each machine of the cluster on its share.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import scale_doc
from pairs import hundred_pairs
from scale_memory import Memory
from speed_machine import Results, described, machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scale.json"
ENGINES = ("bare", "local", "ray")
FILES = 10  # of the input
BATCH, PIECE = 16, 128  # pairs
STORE = 300 << 20  # bytes that a machine of the cluster shares among its processes


def make_input(folder: Path, count: int) -> Path:
    """Parquet files with `count` pairs: the hundred pairs again and again, each with an id of its own."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    if folder.is_dir():
        return folder
    beside = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    known = [(path.read_bytes(), text) for path, text in hundred_pairs()]
    for file in range(FILES):
        places = range(file * count // FILES, (file + 1) * count // FILES)
        with parquet.ParquetWriter(beside / f"{file:02d}.parquet", _schema()) as writer:
            for start in range(places.start, places.stop, 100):
                numbers = range(start, min(start + 100, places.stop))
                rows = [
                    {"id": f"pair-{n}", "image": known[n % 100][0], "caption": f"{known[n % 100][1]}"} for n in numbers
                ]
                writer.write_table(arrow.Table.from_pylist(rows, schema=_schema()))
    beside.rename(folder)
    return folder


def _schema() -> Any:
    import pyarrow as arrow

    return arrow.schema([("id", arrow.string()), ("image", arrow.binary()), ("caption", arrow.string())])


class Clock:
    """Notes how many pairs are done when, as a run tells it."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.points: list[tuple[float, int]] = []

    def __call__(self, progress: Any) -> None:
        if not self.points or progress.pairs > self.points[-1][1]:
            self.points.append((time.monotonic() - self.began, progress.pairs))

    def figures(self, memory: Memory, workers: int) -> dict[str, float]:
        """Pairs a second, and what a pair takes of the CPU in ms: from when each worker did a piece to the end."""
        points = [point for point in self.points if point[1]]
        (first, some), (last, count) = points[workers - 1], points[-1]
        taken = memory.between(self.began + first, self.began + last)
        return {"rate": (count - some) / (last - first), "cpu_ms": 1e3 * taken / (count - some)}


def bare(_: Path, count: int, method: str, __: Path, memory: Memory) -> dict[str, Any]:
    """`isthmus.explain` on pictures that are open already, and nothing is written: what the engines are held to."""
    import isthmus
    from isthmus.encoders.pictures import open_picture

    model = isthmus.load("mini", device="cpu")
    known = [(open_picture(path), text) for path, text in hundred_pairs()]
    numbers = [n % 100 for n in range(count)]
    isthmus.explain(model, [known[0][0]], [known[0][1]], method=method, truncate=True)
    began = time.monotonic()
    for start in range(0, count, 512):
        part = numbers[start : start + 512]
        # Objects of their own, as those of records: one object would be embedded once.
        pictures = [known[n][0].image.copy() for n in part]
        isthmus.explain(model, pictures, [known[n][1] for n in part], method=method, batch_size=BATCH, truncate=True)
    seconds = time.monotonic() - began
    taken = memory.between(began, began + seconds)
    return {"pairs": count, "seconds": seconds, "rate": count / seconds, "cpu_ms": 1e3 * taken / count}


def local(source: Path, count: int, method: str, out: Path, memory: Memory) -> dict[str, Any]:
    return _mapped(source, count, method, out, memory, engine="local")


def ray(source: Path, count: int, method: str, out: Path, memory: Memory) -> dict[str, Any]:
    """On two machines, which are `ray start`ed here with half of the cores each."""
    # Ray's workers are nice to other programs; to compare, they are as the others.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    cores = max(1, (os.cpu_count() or 2) // 2)
    own = {"num_cpus": cores, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**own, "include_dashboard": False})
    try:
        cluster.add_node(**own)
        workers = 2 * max(1, cores // 4)
        found = _mapped(source, count, method, out, memory, workers, engine="ray", address=cluster.address)
    finally:
        cluster.shutdown()
    return found


def _mapped(
    source: Path, count: int, method: str, out: Path, memory: Memory, workers: int = 1, **options: Any
) -> dict[str, Any]:
    import isthmus.scale.mapping as mapping

    clock = Clock()
    done = mapping.map(
        source,
        out,
        model="mini",
        method=method,
        image_column="image",
        text_columns=["caption"],
        device="cpu",
        batch_size=BATCH,
        truncate=True,
        piece_size=PIECE,
        progress=clock,
        **options,
    )
    seconds = time.monotonic() - clock.began
    assert (done.rows, done.failures) == (count, 0), done
    return {"pairs": count, "seconds": seconds, "whole": count / seconds, **clock.figures(memory, workers)}


def measured(engine: str, folder: Path, count: int, method: str) -> dict[str, Any]:
    """One part, in this process, with the peaks of its memory."""
    source, out = make_input(folder / f"in-{count}", count), folder / f"{engine}-{count}-{method}"
    shutil.rmtree(out, ignore_errors=True)
    with Memory() as memory:
        point = {"bare": bare, "local": local, "ray": ray}[engine](source, count, method, out, memory)
    return {**point, "memory": memory.peaks}


def compare(folder: Path, count: int, method: str) -> dict[str, Any]:
    """The rows of both engines, side by side: the same ids, and the largest difference of a number."""
    import numpy as np

    worst = dict.fromkeys(("similarity", "image_scores", "token_scores"), 0.0)
    rows, others = 0, 0
    names = [*worst, "id", "words", "text"]
    ours = [_rows(folder / f"{engine}-{count}-{method}", names) for engine in ("local", "ray")]
    for one, two in zip(*ours, strict=True):
        rows += 1
        others += any(one[name] != two[name] for name in ("id", "words", "text"))
        for name in worst:
            worst[name] = max(worst[name], float(np.abs(np.subtract(one[name], two[name])).max()))
    return {"rows": rows, "others": others, "worst": worst}


def _rows(folder: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of an output in the order of its parts, which are the same in both."""
    import pyarrow.parquet as parquet

    for path in sorted((folder / "pairs").glob("*.parquet")):
        yield from parquet.read_table(path, columns=columns).to_pylist()


def opening() -> dict[str, Any]:
    """What a picture is: bytes, and ms of the CPU to open it."""
    from isthmus.encoders.pictures import open_picture

    paths = [path for path, _ in hundred_pairs()]
    began = time.process_time()
    for path in paths:
        open_picture(path)
    taken = time.process_time() - began
    return {"bytes": sum(path.stat().st_size for path in paths) / len(paths), "cpu_ms": 1e3 * taken / len(paths)}


def in_process(engine: str, options: argparse.Namespace, count: int) -> dict[str, Any]:
    """A part in a new process."""
    command = [sys.executable, __file__, "--inside", engine, "--pairs", str(count), "--method", options.method]
    found = subprocess.run([*command, "--folder", str(options.folder)], stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(found.stdout.splitlines()[-1]))


def measure(options: argparse.Namespace, results: Results) -> None:
    """What is missing, part by part: rates in turns, so that what else the machine does is shared by all."""
    engines = options.only.split(",") if options.only else ENGINES
    for turn in range(options.turns):
        for engine in engines:
            key = f"turn/{options.method}/{options.few}/{engine}/{turn}"
            _put(results, key, lambda engine=engine: in_process(engine, options, options.few))
    _put(results, "opening", opening)
    for engine in engines if options.pairs else ():
        key = f"all/{options.method}/{options.pairs}/{engine}"
        _put(results, key, lambda engine=engine: in_process(engine, options, options.pairs))
    if options.pairs and {"local", "ray"} <= set(engines):
        method, count = options.method, options.pairs
        _put(results, f"rows/{method}/{count}", lambda: compare(options.folder, count, method))


def _put(results: Results, key: str, call: Callable[[], dict[str, Any]]) -> None:
    if results.missing(key):
        point = call()
        results.put(key, point)
        print(f"{key}: {json.dumps(point)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000, help="of the long runs; 0 for none")
    parser.add_argument("--few", type=int, default=2_000, help="pairs of a turn, and of the first figure of memory")
    parser.add_argument("--turns", type=int, default=2, help="how often the engines take turns")
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--only", default="", help="bare, local, ray, or several with commas")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale-cluster.md")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "isthmus-scale")
    parser.add_argument("--inside", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measured(options.inside, options.folder, options.pairs, options.method)))
        return
    if unknown := set(filter(None, options.only.split(","))) - set(ENGINES):
        sys.exit(f"There is no part {min(unknown)}: choose among {', '.join(ENGINES)}.")
    results = Results(options.out, machine("cpu"), again=options.again)
    print(described(results.known), flush=True)
    measure(options, results)
    print(scale_doc.measured(results.known, results.points))
    print(scale_doc.plan(results.points))
    if options.write:
        scale_doc.write(results.known, results.points)


if __name__ == "__main__":
    main()
