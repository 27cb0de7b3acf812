"""How far a call's memory grows, each point in a process of its own.

    python benchmarks/speed_memory.py tiny float32 cpu 8 default 0     one point, as JSON: shape, dtype, device, pairs,
                                                                        setting, budget in bytes (0: the default)

The peak is the process's highest resident memory during the call, over what it held before, when everything that is
made once was made and freed memory was given back; on a GPU, what torch had allocated.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import isthmus
from speed_machine import trimmed
from speed_models import SHAPES, clip, encoder_of, options_of, pairs_of

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(name: str) -> int:
    """Bytes of `VmRSS` (now) or `VmHWM` (the most so far) of this process."""
    if _STATUS.is_file():
        line = next(line for line in _STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def growth(call: Any, device: str) -> int:
    """Bytes by which memory peaks over what is held before a call."""
    trimmed()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return int(torch.cuda.max_memory_allocated(device)) - before
    try:
        _RESET.write_text("5", encoding="utf-8")  # begins VmHWM anew
    except OSError:
        print("The peak of this process cannot be reset: what came before the call counts too.", file=sys.stderr)
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def measure(shape: str, dtype: str, device: str, count: int, setting: str, budget: int) -> dict[str, Any]:
    """One point, in this process."""
    sizes = SHAPES[shape]
    encoder = encoder_of(clip(sizes, dtype=dtype, device=device), sizes)
    pairs, options = pairs_of(sizes, count, device), options_of(sizes, setting)
    pictures, texts = pairs.pictures, pairs.texts
    isthmus.explain(encoder, pictures[:1], texts[:1], memory=1, **options)  # warm, one state at a time
    memory: dict[str, Any] = {"memory": budget} if budget else {}
    grown = growth(lambda: isthmus.explain(encoder, pictures, texts, batch_size=count, **options, **memory), device)
    return {"pairs": count, "budget": budget or None, "growth": grown, "ratio": grown / budget if budget else None}


def in_process(shape: str, dtype: str, device: str, count: int, setting: str, budget: int) -> Any:
    """One point, in a new process."""
    command = [sys.executable, __file__, shape, dtype, device, str(count), setting, str(budget)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:4], int(sys.argv[4]), sys.argv[5], int(sys.argv[6]))))  # type: ignore[call-arg]
