"""steps="auto" keeps its promise on a hundred real pairs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import isthmus

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("layer", [0, 9])
@pytest.mark.parametrize(("closed", "most"), [("floor", 32), ("mean", 32), ("zero", 64)])
def test_auto_reaches_one_percent_on_every_pair(
    mini: Any, shared: Path, monkeypatch: pytest.MonkeyPatch, closed: str, most: int, layer: int
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    from pairs import hundred_pairs

    pictures, texts = zip(*hundred_pairs(), strict=True)
    found = isthmus.explain(
        mini, list(pictures), list(texts), closed=closed, layer=layer, steps="auto", tolerance=0.01, truncate=True
    )
    assert len(found) == 100
    for one in found:
        for side in (one.image, one.text):
            assert side.completeness.relative_delta < 0.01, (one.source, one.caption)
            assert side.options["converged"] is True
            assert side.options["steps"] <= most
