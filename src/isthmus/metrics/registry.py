"""The registry of metrics: a metric is registered once and appears in Python, on the command line and in the docs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from isthmus.encoders.tower import Side
from isthmus.errors import OptionError
from isthmus.metrics.pairs import REPLACEMENTS

Question = Literal["caption", "region", "swap"]


@dataclass(frozen=True, eq=False)
class Metric:
    """A number for each pair that says how good an explanation is.

    Attributes:
        name: as users type it.
        title, paper: what it is called, and where it is described.
        function: takes a `Judged`, a side, and options by keyword; gives `(B,)` float64, NaN where a pair has none.
        variants: named sets of the function's options; each gives a row of the results.
        sides: the sides that it is defined for.
        question: the pairs that it needs: a picture with its caption, with the name of a thing whose place is known,
            or with a caption in which one word is wrong.
        better: whether a higher or a lower value speaks for the method, or "" where neither does.
        unit: what a value is measured in.
        oracle: whether the greedy oracle is defined for it.
    """

    name: str
    title: str
    paper: str
    function: Callable[..., Tensor]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})
    sides: tuple[Side, ...] = ("image", "text")
    question: Question = "caption"
    better: Literal["higher", "lower", ""] = "higher"
    unit: str = ""
    oracle: bool = False

    def unit_of(self, variant: str) -> str:
        """What a variant's value is measured in: normalised, it is a share."""
        return "" if self.variants.get(variant, {}).get("normalised") else self.unit

    def variants_of(self, side: Side) -> dict[str, Mapping[str, Any]]:
        """The variants that a side can have: a text, for one, cannot be blurred."""
        there = (*REPLACEMENTS[side], None)
        return {name: given for name, given in self.variants.items() if given.get("replacement") in there}


METRICS: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Add a metric to the registry. Raises OptionError where its name is taken."""
    if metric.name in METRICS:
        raise OptionError(f"There is a metric {metric.name!r} already: choose another name.")
    METRICS[metric.name] = metric
    return metric


def get(name: str) -> Metric:
    """The metric of a name. Raises OptionError, naming those there are, where there is none."""
    if name not in METRICS:
        raise OptionError(f"There is no metric {name!r}: choose one of {', '.join(sorted(METRICS))}.")
    return METRICS[name]


def options_of(metric: Metric) -> tuple[str, ...]:
    """The names of the options that a metric's function takes."""
    parameters = inspect.signature(metric.function).parameters.values()
    return tuple(one.name for one in parameters if one.kind == one.KEYWORD_ONLY)
