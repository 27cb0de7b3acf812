"""What the benchmarks of many pairs count, and the tables that they make."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from isthmus.scale.rows import table_of
from isthmus.scale.store import Store

sys.path.append(str(ROOT / "benchmarks"))
memory: Any = importlib.import_module("scale_memory")
doc: Any = importlib.import_module("scale_doc")
plan: Any = importlib.import_module("scale_plan")
sizes: Any = importlib.import_module("scale_sizes")

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
}


def cells(page: Path, head: str) -> dict[str, list[str]]:
    """The table of a document whose first line has `head` first: by the first cell of a line."""
    table = re.search(rf"^\| {head} \|.*?(?=^$)", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert table is not None
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()]
    return {first: rest for first, *rest in lines}


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
    assert "| light | H200 |" not in told, "no engine was measured at it"
    assert "ViT-B/32 `light`, ViT-L/14 `default`, ViT-L/14 `light`." in told
    assert ("engine measured on a card" in told) == measured
    assert "not measured" in told
    # two pairs a second on two cores are one on each, but for 25 ms beside it
    assert f"| ViT-B/32 | light | CPU | {64 / 1.025:,.3g} |" in told
    if measured:
        assert "| ViT-B/32 | default | H200 | 800 | 35 | 8.7 |" in told


def test_tables_go_between_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text(doc.DOC.read_text(encoding="utf-8"), encoding="utf-8")
    other.write_text(doc.OUTPUT.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(doc, "DOC", page)
    monkeypatch.setattr(doc, "OUTPUT", other)
    doc.write(KNOWN, POINTS)
    once = page.read_text(), other.read_text()
    assert doc.measured(KNOWN, POINTS) in once[0]
    assert doc.sizes() in once[1]
    doc.write(KNOWN, POINTS)
    assert (page.read_text(), other.read_text()) == once


def test_both_documents_have_what_is_in_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = json.loads((plan.RESULTS / "scale.json").read_text(encoding="utf-8"))
    assert not [key for key in stored["points"] if key.startswith("sizes/")], "sizes are in a file of their own"
    for name in ("DOC", "OUTPUT"):
        page = tmp_path / name
        page.write_text(getattr(doc, name).read_text(encoding="utf-8"), encoding="utf-8")
        monkeypatch.setattr(doc, name, page)
    before = doc.DOC.read_text(), doc.OUTPUT.read_text()
    doc.write(stored["machine"], stored["points"])
    assert (doc.DOC.read_text(), doc.OUTPUT.read_text()) == before, "run: python benchmarks/scale_doc.py"


def test_both_documents_have_the_same_sizes() -> None:
    million, all_pairs = cells(doc.OUTPUT, "GB a million pairs"), cells(doc.DOC, "TB of output")
    forms = list(plan.FORMS)
    assert (million.pop("GB a million pairs"), all_pairs.pop("TB of output")) == (["grid", *forms], forms)
    points = plan.loaded(plan.SIZES)
    for name in plan.MODELS:
        few, many = million[sizes.GRIDS[name][0]][1:], all_pairs[plan.SHAPES[name].title]
        assert len(few) == len(many) == len(forms)
        for form, gigabytes, terabytes in zip(forms, few, many, strict=True):
            size = points[f"{name}/{form}"]["bytes"]
            assert float(gigabytes) == pytest.approx(size / 1e3, rel=0.02)
            assert float(terabytes) == pytest.approx(float(gigabytes) * plan.PAIRS / 1e9, rel=1e-12)


def test_sizes_are_of_captions_that_differ(tmp_path: Path) -> None:
    rows = [{"id": f"{i}", "text": f"text {i // 2}", "picture": f"{i}", "method": "nib"} for i in range(40)]
    store = Store(str(tmp_path))
    store.prepare({"model": "mini"})
    store.put(0, 0, table_of(rows))
    assert [row["text"] for row in sizes.rows_of(str(tmp_path), 20)] == [f"text {i}" for i in range(20)]
    with pytest.raises(SystemExit, match="has 20 different captions: 21 are needed"):
        sizes.rows_of(str(tmp_path), 21)


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
