"""What the benchmarks of many pairs count, and the tables that they make."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
memory: Any = importlib.import_module("scale_memory")
doc: Any = importlib.import_module("scale_doc")
plan: Any = importlib.import_module("scale_plan")

KNOWN = {"cpu": "a CPU", "flags": [], "threads": 2, "torch": "2", "transformers": "5", "system": "Linux"}


def point(rate: float, cpu: float, **more: Any) -> dict[str, Any]:
    return {"pairs": 100, "rate": rate, "cpu_ms": cpu, "memory": {"driver": 400, "worker": 900}, **more}


POINTS = {
    "turn/nib/100/bare/0": point(10, 100),
    "turn/nib/100/bare/1": point(5, 100),
    "turn/nib/100/local/0": point(9, 110),
    "turn/nib/100/local/1": point(5, 110),
    "turn/nib/100/ray/0": point(8, 125),
    "turn/nib/100/ray/1": point(4, 125),
    "all/nib/1000/local": point(9, 110),
    "all/nib/1000/ray": point(8, 125),
    "rows/nib/1000": {"rows": 1000, "others": 0, "worst": {"similarity": 1e-7}},
    "opening": {"bytes": 150_000.0, "cpu_ms": 8.0},
    **{f"sizes/{name}/{form}": {"bytes": 500.0} for name in ("b32", "l14") for form in plan.FORMS},
}


def test_ratios_are_of_the_same_turn() -> None:
    engines = doc.turns(POINTS)[("nib", 100)]
    assert doc.ratio(engines, "local") == pytest.approx(0.95)
    assert doc.ratio(engines, "ray") == pytest.approx(0.8)
    assert doc.ratio(engines, "ray", "cpu_ms") == pytest.approx(0.8)
    assert doc.ratio({}, "ray") is None
    assert plan.beside_ms(POINTS) == pytest.approx(25)


def test_the_tables_say_what_was_measured() -> None:
    told = doc.measured(KNOWN, POINTS)
    assert "| local engine | 7.0 | 95% | 110.0 | 91% |" in told
    assert "| Ray, two machines | 1,000 | 400 | 900 | 0 | 0 | 0 |" in told
    assert "1,000 with the same ids" in told


@pytest.mark.parametrize("measured", [False, True])
def test_the_plan_says_what_is_not_measured(measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    floor = {"floor/b32/light/bfloat16": {"pairs": 20, "seconds": 10.0}}
    (tmp_path / "speed-cpu.json").write_text(json.dumps({"machine": KNOWN, "points": floor}))
    if measured:
        rates = {"b32/default/bfloat16/ray": {"rate": 100.0}}
        (tmp_path / "scale-gpu.json").write_text(json.dumps({"machine": {**KNOWN, "gpu": "a card"}, "points": rates}))
    monkeypatch.setattr(plan, "RESULTS", tmp_path)
    told = plan.plan(POINTS)
    assert ("engine measured on a card" in told) == measured
    assert "not measured" in told
    # two pairs a second on two cores are one on each, but for 25 ms beside it
    assert f"| ViT-B/32 | light | CPU | {64 / 1.025:,.3g} |" in told
    if measured:
        assert "| ViT-B/32 | default | H200 | 800 | 35 | 8.7 |" in told


def test_tables_go_between_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(doc.DOC.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(doc, "DOC", page)
    doc.write(KNOWN, POINTS)
    once = page.read_text()
    assert doc.measured(KNOWN, POINTS) in once
    doc.write(KNOWN, POINTS)
    assert page.read_text() == once


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc, which this system has not")
def test_memory_and_time_of_what_was_started() -> None:
    began = time.monotonic()
    with memory.Memory() as watched:
        code = "held = bytearray(200 << 20); import time; time.sleep(2.5)  # isthmus.scale.opening"
        subprocess.run([sys.executable, "-c", code], check=True)
    assert 200 <= watched.peaks["decoder"] < 260
    assert watched.peaks["driver"] > 20
    assert 0 < watched.between(began, time.monotonic()) < 30
    assert memory.tree(os.getpid())[0] == os.getpid()
