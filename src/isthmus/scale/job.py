"""Job: what is done to every pair of a run; and the rows that it gives."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isthmus.encoders.dual import DualEncoder
from isthmus.errors import OptionError
from isthmus.explainer import load
from isthmus.methods import registry
from isthmus.methods.vectors import position_vectors
from isthmus.scale.opening import OPENER
from isthmus.scale.schema import columns

_VECTORS = frozenset(inspect.signature(position_vectors).parameters) - {"tower", "inputs"}


@dataclass(frozen=True)
class Job:
    """What is done to every pair; it can be pickled.

    Attributes:
        model: a name or folder, as `isthmus.load` takes it.
        methods: attribution methods; each gives a row for each pair.
        options: of the methods; each takes those that it has.
        sides: the sides to explain; None for those that a method is defined for.
        preset, truncate: as of `isthmus.explain`.
        device, dtype: as of `isthmus.load`.
        batch_size: pairs at once.
        stored: the form of the maps, see `isthmus.scale.schema.FORMS`.
        decoders: processes that open pictures; None for as many as the device needs.
        opener: "module:function", what opens a picture there.
    """

    model: str = "mini"
    methods: tuple[str, ...] = ("nib",)
    options: Mapping[str, Any] = field(default_factory=dict)
    sides: tuple[str, ...] | None = None
    preset: str | None = None
    truncate: bool = False
    device: str | None = None
    dtype: str | None = None
    batch_size: int = 16
    stored: str = "float32"
    decoders: int | None = None
    opener: str = OPENER

    def check(self) -> None:
        """Refuse what cannot be before anything is read. Raises OptionError."""
        columns(self.stored)
        size = self.batch_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionError(f"batch_size must be a whole number of at least 1, not {size!r}.")
        if self.decoders is not None and self.decoders < 1:
            raise OptionError(f"workers must be at least 1, not {self.decoders}.")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise OptionError("Give one method at least, and none twice.")
        known = [registry.get(name) for name in self.methods]
        for name in self.options:
            if not any(name in method.options for method in known):
                raise OptionError(f"{' and '.join(self.methods)} has no option {name!r}: see isthmus methods.")
        for method in known:
            if self.preset is not None and self.preset not in method.presets:
                there = ", ".join(method.presets) or "none"
                raise OptionError(f"{method.name} has no preset {self.preset!r}: it has {there}.")
            for side in self.sides or ():
                if side not in method.sides:
                    raise OptionError(f"{method.name} is not defined for the {side} side: choose another method.")
        if self.stored == "vectors" and (self.methods != ("nib",) or self.preset is not None):
            raise OptionError('stored="vectors" keeps vectors of nib\'s path: leave the method and the preset out.')
        if self.stored == "vectors" and self.sides is not None:
            raise OptionError('stored="vectors" keeps pictures\' vectors and explains texts: leave the sides out.')

    def load(self) -> DualEncoder:
        """The model."""
        return load(self.model, device=self.device, dtype=self.dtype)

    def options_of(self, method: str) -> dict[str, Any]:
        """The options that a method has."""
        has = registry.get(method).options
        return {name: value for name, value in self.options.items() if name in has}

    @property
    def vector_options(self) -> dict[str, Any]:
        """The options that prompt-free vectors have."""
        return {name: value for name, value in self.options.items() if name in _VECTORS}

    def settings(self) -> dict[str, Any]:
        """What rows follow from, for the manifest: a run goes on only where it is the same."""
        told: dict[str, Any] = {
            "model": self.model,
            "methods": list(self.methods),
            "options": dict(self.options),
            "sides": None if self.sides is None else list(self.sides),
            "preset": self.preset,
            "truncate": self.truncate,
            "dtype": self.dtype or "float32",
            "stored": self.stored,
        }
        if self.preset is not None:  # what is published may depend on the batch
            told["batch_size"] = self.batch_size
        return told


def decoders_for(device: str, cores: int | None = None) -> int:
    """How many processes open pictures for one model: on a CPU the model needs the cores, a GPU needs the pictures."""
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device == "cpu" else max(2, min(8, cores // 2))
