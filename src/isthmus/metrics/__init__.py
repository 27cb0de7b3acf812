"""Metrics: numbers that say how good an explanation is."""

from isthmus.metrics import confidence, fidelity, localisation, ranking, swaps
from isthmus.metrics.measuring import measure
from isthmus.metrics.pairs import Judged, Pairs, judged, pairs_of
from isthmus.metrics.registry import METRICS, Metric, register

__all__ = [
    "METRICS",
    "Judged",
    "Metric",
    "Pairs",
    "confidence",
    "fidelity",
    "judged",
    "localisation",
    "measure",
    "pairs_of",
    "ranking",
    "register",
    "swaps",
]
