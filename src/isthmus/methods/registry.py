"""The registry: a method is registered once and appears everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
        notes: for each input, what its reader should know.
        published: whether the paper's min-max map belongs to the result (`preset="paper"`).
        flat: what the published min-max makes of a map that is the same everywhere.
        grid: `(rows, columns)` of the T positions where the state was convolutional: its own, not the input's patches.
    """

    scores: Tensor
    open: Tensor
    closed: Tensor | None
    options: tuple[Mapping[str, Any], ...]
    notes: tuple[tuple[str, ...], ...] = ()
    published: bool = False
    flat: float = math.nan
    grid: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Method:
    """A published attribution method, with what is known of it; tests derive every property from behaviour.

    Attributes:
        name: as users type it.
        title, paper: what it is called, and where it is described.
        function: takes a tower, its inputs and a target `(B, D)`, and options by keyword; gives an Attribution.
        sides: the sides that it is defined for.
        options: one line of meaning for each option.
        presets: names of presets, each with one line of meaning.
        units: what a score is measured in: "score" where scores grow in proportion to the target, "bits", or ""
            where they have no unit.
        signed: whether scores may speak against the match.
        complete: whether the scores of all positions sum to `open - closed`, up to the delta that is reported.
        explains_score: the map follows all that the score follows; False where it shows another thing that the model
            computes (attention alone, direct effects without MLPs, a second path beside the model's own).
        needs_gradients: differentiates the model.
        needs_attention: reads attention weights, or the queries, keys and values of attention modules.
        needs_fit: the sides on which its default options read statistics of the model's reference set, made once.
        needs_bank: compares with other texts (for a picture; pictures for a text): its function takes `bank`,
            `(M, D)` unit embeddings, of the reference set where the user gives none.
        needs_layouts: its function takes `layouts`, what each position of each input is.
        passes: runs of a side's encoder, or of what is left of it behind the cut, forward and backward, for one
            input by the default options, at most; in terms of n (steps or samples), P (patches, or pieces of the
            text) and T (all positions).
        cut: the layer at which the function splits a tower where no option `layer` says so, by the preset's name, ""
            without one: the run that embeds an input keeps what enters it. What is left out costs time alone.
        joint: gives the joint map of words and regions, where the method has one: takes the two sides as
            `isthmus.methods.joint.Half` and options by keyword, gives an Interaction.
        joint_options: the method's options that the joint map takes too.
    """

    name: str
    title: str
    paper: str
    function: Callable[..., Attribution]
    sides: tuple[Side, ...] = ("image", "text")
    options: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)
    units: Literal["score", "bits", ""] = "score"
    signed: bool = True
    complete: bool = False
    explains_score: bool = True
    needs_gradients: bool = True
    needs_attention: bool = False
    needs_fit: tuple[Side, ...] = ()
    needs_bank: bool = False
    needs_layouts: bool = False
    passes: tuple[str, str] = ("2", "1")
    cut: Mapping[str, float] = field(default_factory=dict)
    joint: Callable[..., Any] | None = None
    joint_options: tuple[str, ...] = ()

    @property
    def random(self) -> bool:
        """Whether it draws numbers, from a generator of its own with the option `seed`."""
        return "seed" in self.options


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
