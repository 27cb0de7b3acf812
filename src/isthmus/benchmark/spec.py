"""Spec: a method with its options under a label of its own, so that a run can compare settings as well as methods."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus.assembly import jsonable
from isthmus.datasets.records import safe_name
from isthmus.encoders.tower import Side
from isthmus.errors import OptionError
from isthmus.methods import registry
from isthmus.metrics.trivial import TRIVIAL

ORACLE = "oracle"


@dataclass(frozen=True, eq=False)
class Spec:
    """What is compared: a row or column of the table.

    Attributes:
        label: its name in the table; by default the method's.
        method: a name of `isthmus.methods`, or that of a trivial map ("random", "flat", "centre", "oracle").
        options: the method's options, as `isthmus.explain` takes them.
        preset: the method's preset.
    """

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None

    @property
    def trivial(self) -> bool:
        """Whether it is a map that knows nothing of the model, or the oracle."""
        return self.method in TRIVIAL or self.method == ORACLE

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that it explains."""
        return ("image", "text") if self.trivial else registry.get(self.method).sides

    @property
    def key(self) -> str:
        """A file name that changes with the method's options."""
        digest = hashlib.sha256(json.dumps(self.told, sort_keys=True, default=str).encode()).hexdigest()[:8]
        return f"{safe_name(self.label)}-{digest}"

    @property
    def told(self) -> list[Any]:
        """The method, its options and its preset, as JSON holds them."""
        return [self.method, jsonable(self.options), self.preset]


def check_options(method: str, given: Mapping[str, Any]) -> None:
    """Refuse options, but for a preset, that a method does not have.

    Raises:
        OptionError: no such method, or no such option of it.
    """
    there = registry.get(method).options
    for name in given:
        if name not in (*there, "preset"):
            raise OptionError(f"{method} has no option {name!r}: it has {', '.join(sorted(there))}.")


def specs_of(
    methods: Sequence[str],
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    preset: str | None = None,
    trivial: Sequence[str] = tuple(TRIVIAL),
) -> tuple[Spec, ...]:
    """Specs of methods by name, and of the trivial maps that stand beside them.

    Args:
        methods: names; "all" for every registered method.
        options: options by the method's name, "preset" among them.
        preset: for every method that has it.
        trivial: names of the trivial maps.

    Raises:
        OptionError: no such method, or options of one that is not asked for.
    """
    given = dict(options or {})
    names = list(dict.fromkeys(methods))
    if names == ["all"]:
        names = sorted(registry.METHODS)
    known = [name for name in names if name not in (*TRIVIAL, ORACLE)]
    for name in given:
        if name not in known:
            raise OptionError(f"There are options for {name!r}, which is not evaluated: add it to the methods.")
    found = []
    for name in known:
        check_options(name, given.get(name, {}))
        own = dict(given.get(name, {}))
        chosen = own.pop("preset", preset if preset in tuple(registry.get(name).presets) else None)
        found.append(Spec(name, name, own, chosen))
    return (*found, *(Spec(name, name) for name in dict.fromkeys((*trivial, *(n for n in names if n not in known)))))
