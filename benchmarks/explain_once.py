"""How long `isthmus explain` takes for one pair on the bundled model, as a whole process, and where the time goes.

    python benchmarks/explain_once.py

Every run is a new process; the median of five is printed, with the share of each part.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).resolve().parents[1] / "examples" / "dog.jpg"
RUNS = 5

PARTS = """
import json, sys, time
began = time.perf_counter()
def lap():
    global began
    now = time.perf_counter(); taken = now - began; began = now
    return taken
parts = {}
import isthmus
parts["import isthmus"] = lap()
from isthmus.explainer import explain, load
parts["import torch and the rest"] = lap()
model = load("mini", device="cpu")
parts["load (transformers and the weights)"] = lap()
one = explain(model, sys.argv[1], "a dog is tied to a fire hydrant")
parts["compute"] = lap()
one.save(sys.argv[2])
parts["draw and save"] = lap()
print(json.dumps(parts))
"""


def main() -> None:
    runs, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            done = subprocess.run(
                [sys.executable, "-c", PARTS, str(PICTURE), folder], check=True, capture_output=True, text=True
            )
            runs.append(json.loads(done.stdout))
            timed = (
                "import subprocess, sys, time; t = time.perf_counter(); "
                "subprocess.run(sys.argv[1:], check=True, capture_output=True); print(time.perf_counter() - t)"
            )
            command = [sys.executable, "-m", "isthmus", "explain", str(PICTURE), "a dog is tied to a fire hydrant"]
            done = subprocess.run(
                [sys.executable, "-c", timed, *command, "--out", folder], check=True, capture_output=True, text=True
            )
            whole.append(float(done.stdout))
    total = sum(statistics.median(run[part] for run in runs) for part in runs[0])
    print("| part | seconds (median of 5) | share |\n|---|---|---|")
    for part in runs[0]:
        seconds = statistics.median(run[part] for run in runs)
        print(f"| {part} | {seconds:.3f} | {seconds / total:.0%} |")
    print(f"| sum of the parts | {total:.3f} | 100% |")
    print(f"| `isthmus explain` as a whole process | {statistics.median(whole):.3f} | |")


if __name__ == "__main__":
    main()
