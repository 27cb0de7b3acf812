"""The registry: a method is registered once and appears everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from isthmus.encoders.tower import Side
from isthmus.errors import OptionError


@dataclass(frozen=True, eq=False)
class Attribution:
    """What a method gives for a batch of B inputs of T positions.

    Attributes:
        scores: `(B, T)` signed and raw, in units of the score where the method has units.
        open: `(B,)` score of the unchanged inputs.
        closed: `(B,)` score with every feature closed; None where the method has no such state.
        options: options as resolved, for each input.
        passes: runs of the encoder or its suffix on one input, counted for "forward" and "backward".
        notes: for each input, what its reader should know.
        published: whether the paper's min-max map belongs to the result (`preset="paper"`).
        flat: what the published min-max makes of a map that is the same everywhere.
    """

    scores: Tensor
    open: Tensor
    closed: Tensor | None
    options: tuple[Mapping[str, Any], ...]
    passes: Mapping[str, int]
    notes: tuple[tuple[str, ...], ...] = ()
    published: bool = False
    flat: float = math.nan


@dataclass(frozen=True, eq=False)
class Method:
    """A published attribution method.

    Attributes:
        name: as users type it.
        title, paper: what it is called, and where it is described.
        function: takes a tower, its inputs and a target `(B, D)`, and options by keyword; gives an Attribution.
        sides: the sides that it is defined for.
        options: one line of meaning for each option.
        presets: names of presets, each with one line of meaning.
        deterministic: the same call gives the same bits.
        needs_gradients: needs a differentiable model.
        needs_content: also takes `content`, `(B, T)` bool: the positions that are patches or pieces of the text.
    """

    name: str
    title: str
    paper: str
    function: Callable[..., Attribution]
    sides: tuple[Side, ...] = ("image", "text")
    options: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)
    deterministic: bool = True
    needs_gradients: bool = True
    needs_content: bool = False


METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Add a method to the registry. Raises OptionError where its name is taken."""
    if method.name in METHODS:
        raise OptionError(f"There is a method {method.name!r} already: choose another name.")
    METHODS[method.name] = method
    return method


def get(name: str) -> Method:
    """The method of a name. Raises OptionError, naming those there are, where there is none."""
    if not isinstance(name, str) or name not in METHODS:
        raise OptionError(f"There is no method {name!r}: choose one of {', '.join(sorted(METHODS))}.")
    return METHODS[name]
