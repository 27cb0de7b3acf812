"""Measures a metric on the maps of a batch: its values, and the curves that they are areas under."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from isthmus.encoders.tower import Side
from isthmus.metrics.oracle import oracle
from isthmus.metrics.pairs import Judged, Pairs
from isthmus.metrics.ranking import curve, deletion, insertion
from isthmus.metrics.registry import Metric

Curve = tuple[float, ...] | None


def measured(
    pairs: Pairs, judged: Judged | None, metric: Metric, side: Side, options: dict[str, Any]
) -> tuple[list[float], list[Curve]]:
    """A value for each pair, and a curve where the metric is the area under one.

    Args:
        pairs: what is judged.
        judged: maps of them; None for the greedy oracle, which has a map of its own for each metric.
        metric, side, options: what to measure.
    """
    curves: list[Curve] = [None] * len(pairs)
    if judged is None and metric.name == "insertion-deletion":
        return _both(pairs, side, options).tolist(), curves
    if judged is None:
        judged = _greedy(pairs, metric, side, options)
    values: list[float] = metric.function(judged, side, **options).tolist()
    if metric.name in ("insertion", "deletion"):
        curves = _curves(judged, metric.name == "insertion", side, options)
    return values, curves


def _both(pairs: Pairs, side: Side, options: dict[str, Any]) -> Tensor:
    """Each of the two curves has a greedy order of its own."""
    rising, falling = (oracle(pairs, side, insert=insert, **_how(options)) for insert in (True, False))
    return insertion(rising, side, **options) - deletion(falling, side, **options)


def _greedy(pairs: Pairs, metric: Metric, side: Side, options: dict[str, Any]) -> Judged:
    """The oracle of one curve; with the least important first it does the opposite."""
    least = metric.name.endswith("least-first") or options.get("first") == "least"
    insert = metric.name.startswith("insertion") != least
    return oracle(pairs, side, insert=insert, **_how(options))


def _how(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("score", "replacement") if name in options}


def _curves(judged: Judged, insert: bool, side: Side, options: dict[str, Any]) -> list[Curve]:
    x, y = curve(judged, side, insert=insert, **options)
    found: list[Curve] = []
    for shares, values in zip(x.numpy(), y.numpy(), strict=True):
        _, first = np.unique(shares, return_index=True)
        found.append(tuple(values[first].tolist()))
    return found
