"""Plan: what a run evaluates, checked before anything is computed."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus.assembly import jsonable
from isthmus.benchmark.choosing import CHOICES
from isthmus.benchmark.spec import ORACLE, Spec
from isthmus.datasets.sample import Sample
from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.tower import Side
from isthmus.errors import OptionError
from isthmus.metrics.pairs import REPLACEMENTS, SIDES
from isthmus.metrics.registry import METRICS, Metric, Question, options_of

ORACLE_PAIRS = 48
Wanted = tuple[Metric, Side, str, dict[str, Any]]  # a metric's variant on a side, with its options
USUAL = ("confidence-drop", "confidence-increase", "insertion", "deletion", "insertion-deletion", "sensitivity-n")


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run evaluates.

    Attributes:
        model: the model.
        dataset: the dataset's name.
        samples: its samples, in the order that makes the batches.
        specs: methods and trivial maps.
        metrics: the metrics.
        metric_options: options by a metric's name, for all of its variants.
        replacements: what stands where something was taken away, for metrics that take it; the first one is unnamed in
            the table, and the others give variants of their own.
        choice: which caption is judged, see `isthmus.benchmark.choosing`.
        seed: of all random draws.
        batch_size: pairs at once; `preset="paper"` depends on it.
        oracle_pairs: the greedy oracle, which is dear, is made for so many pairs, the first ones.
        sides: the sides that are judged.
        only: the variants that are measured; None for all.
    """

    model: DualEncoder
    dataset: str
    samples: Sequence[Sample]
    specs: tuple[Spec, ...]
    metrics: tuple[Metric, ...]
    metric_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    replacements: tuple[str, ...] = ("mean",)
    choice: str = "best"
    seed: int = 0
    batch_size: int = 32
    oracle_pairs: int = ORACLE_PAIRS
    sides: tuple[Side, ...] = SIDES
    only: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not self.samples:
            raise OptionError("There is nothing to evaluate: the sample is empty.")
        if not self.specs or not self.metrics:
            raise OptionError("There is nothing to evaluate: name at least one method and one metric.")
        if self.choice not in CHOICES:
            raise OptionError(f"There is no choice {self.choice!r} of captions: choose one of {', '.join(CHOICES)}.")
        if len({spec.label for spec in self.specs}) < len(self.specs):
            raise OptionError("Two methods bear one label: give each a label of its own.")
        known = {*REPLACEMENTS["image"], *REPLACEMENTS["text"]}
        for name in self.replacements:
            if name not in known:
                raise OptionError(f"There is no replacement {name!r}: choose from {', '.join(sorted(known))}.")
        for side in self.sides:
            if not set(self.replacements) & set(REPLACEMENTS[side]):
                raise OptionError(
                    f"No replacement is for the {side}, not {' or '.join(self.replacements)}: add one of "
                    f"{', '.join(REPLACEMENTS[side])}, or leave the {side} out."
                )
        for name, given in self.metric_options.items():
            _check_options(name, given, self.metrics)

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions that the metrics ask of the sides that are judged."""
        return tuple(dict.fromkeys(one.question for one in self.metrics if set(one.sides) & set(self.sides)))

    def variants(self, metric: Metric, side: Side) -> dict[str, dict[str, Any]]:
        """The variants of a metric on a side, with all their options."""
        if side not in metric.sides or side not in self.sides:
            return {}
        common = dict(self.metric_options.get(metric.name, {}))
        found: dict[str, dict[str, Any]] = {}
        for name, own in metric.variants_of(side).items():
            if self.only is not None and name not in self.only:
                continue
            options = {**common, **own}
            if "replacement" not in inspect.signature(metric.function).parameters or "replacement" in options:
                found[name] = options
                continue
            if options.get("protocol") == "paper" or name == "paper":
                found[name] = options
                continue
            for i, replacement in enumerate(self.replacements):
                if replacement in REPLACEMENTS[side]:
                    label = name if i == 0 else f"{name}, {replacement}".lstrip(", ")
                    found[label] = {**options, "replacement": replacement}
        return found

    def metrics_of(self, question: Question) -> list[Metric]:
        """The metrics that ask a question."""
        return [one for one in self.metrics if one.question == question and set(one.sides) & set(self.sides)]

    def wanted(self, spec: Spec, question: Question) -> list[Wanted]:
        """What is measured of a spec."""
        return [
            (metric, side, name, options)
            for metric in self.metrics_of(question)
            if metric.oracle or spec.method != ORACLE
            for side in self.sides
            if side in spec.sides
            for name, options in self.variants(metric, side).items()
        ]

    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to go on; methods and metrics may be added.

        `metrics` are the options of each metric and `methods` those of each label, which must be the same where it was
        measured before.
        """
        return {
            "dataset": self.dataset,
            "sample": _digest("\n".join(sample.id for sample in self.samples)),
            "samples": len(self.samples),
            "texts": _digest(json.dumps([sample.texts for sample in self.samples])),
            "model": self.model.name,
            "revision": self.model.revision,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "choice_of_captions": self.choice,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "replacements": list(self.replacements),
            "metrics": {one.name: jsonable(self.metric_options.get(one.name, {})) for one in self.metrics},
            "methods": {one.label: one.told for one in self.specs if not one.trivial},
        }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def metrics_of(names: Sequence[str] | None) -> tuple[Metric, ...]:
    """Metrics by name; the usual ones where nobody chooses, all of them for "all"."""
    from isthmus.metrics import registry

    if names is None:
        names = USUAL
    if list(names) == ["all"]:
        names = sorted(METRICS)
    return tuple(registry.get(name) for name in dict.fromkeys(names))


def _check_options(name: str, given: Mapping[str, Any], metrics: Sequence[Metric]) -> None:
    there = {metric.name: metric for metric in metrics}
    if name not in there:
        raise OptionError(f"There are options for {name!r}, which is not measured: add it to the metrics.")
    takes = options_of(there[name])
    varied = {option for own in there[name].variants.values() for option in own}
    for option in given:
        if option not in takes:
            raise OptionError(f"{name} has no option {option!r}: it has {', '.join(takes) or 'none'}.")
        if option in varied:
            raise OptionError(f"The variants of {name} differ in {option!r}, so that it cannot be given: leave it out.")
