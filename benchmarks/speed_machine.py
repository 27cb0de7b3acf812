"""The machine that speed is measured on, clocks for it, and the file in which a run keeps its points."""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve")

Point = dict[str, Any]


def processor() -> tuple[str, list[str]]:
    """Name of the CPU and those of its flags that matrix products care for."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return platform.processor() or platform.machine(), []
    found: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    flags = (found.get("flags") or found.get("Features") or "").split()
    return found.get("model name") or platform.machine(), [flag for flag in FLAGS if flag in flags]


def machine(device: str) -> dict[str, Any]:
    """What a figure must be read with."""
    import transformers

    name, flags = processor()
    known = {
        "cpu": name,
        "flags": flags,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    return known | ({"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {})


def described(known: dict[str, Any]) -> str:
    """The machine in one line."""
    where = f"{known['gpu']} beside " if "gpu" in known else ""
    flags = ", ".join(flag for flag in known["flags"] if flag != "avx2") or "no AVX-512"
    versions = f"torch {known['torch']}, transformers {known['transformers']}"
    return f"{where}{known['cpu']} ({flags}), {known['threads']} threads, {known['system']}, {versions}"


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(processor()[1]))


def waited(device: str) -> None:
    """Wait for what a GPU has been given to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def timed(call: Callable[[], Any], device: str) -> tuple[Any, float]:
    """What a call gives, and its seconds."""
    gc.collect()
    waited(device)
    began = time.perf_counter()
    found = call()
    waited(device)
    return found, time.perf_counter() - began


def spread(seconds: list[float]) -> dict[str, float | int]:
    """Median, fastest and slowest of repeats."""
    return {
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "repeats": len(seconds),
    }


def trimmed() -> None:
    """Give freed memory back to the system, so that what a process holds is what it uses."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


class Results:
    """Points by name in a JSON file of one machine, written after each; a later run takes up what is there.

    Args:
        path: the file; made when the first point is put.
        known: the machine, as `machine` gives it.
        again: measure points anew that are there.
    """

    def __init__(self, path: Path, known: dict[str, Any], *, again: bool = False) -> None:
        """Read what is there; refuse figures of another machine, which no table may mix with these."""
        self.path, self.known, self.again = path, known, again
        there = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if there and there["machine"] != known:
            sys.exit(f"{path} holds figures of another machine ({described(there['machine'])}): choose another --out.")
        self.points: dict[str, Point] = there.get("points", {})

    def missing(self, key: str) -> bool:
        """Whether a point is still to be measured; says so where it is not."""
        if key in self.points and not self.again:
            print(f"{key}: there already (--again measures it anew)", flush=True)
            return False
        return True

    def put(self, key: str, point: Point) -> None:
        """Keep a point and write the file."""
        self.points[key] = point
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"machine": self.known, "points": dict(sorted(self.points.items()))}
        self.path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
