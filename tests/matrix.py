"""Every dual encoder of the zoo by every method: where a method runs, and why it refuses where it does not."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import isthmus
from cheap import CHEAP
from conftest import picture
from isthmus.encoders.dual import DualEncoder
from isthmus.errors import IsthmusError
from isthmus.methods import METHODS
from state import untouched
from zoo import ZOO, Built

MODELS = sorted(ZOO)
METHOD_NAMES = sorted(METHODS)
TEXTS = ["dog", "a small dog runs", "a bird"]
OPTIONS: dict[str, dict[str, Any]] = {
    **CHEAP,
    "agi": {"steps": 2, "classes": 2, "epsilon": 0.01},
    "banzhaf": {"samples": {"image": 128, "text": 32}},
    "integrated-gradients": {"steps": 3},
    "nib": {"steps": 3},
    "multilayer-nib": {"steps": 2},
}


@functools.cache
def pictures() -> list[Any]:
    """Tall, very wide and wide: a model that keeps the shape of pictures finds fewer patches in the first two."""
    return [picture(0, (40, 80)), picture(1, (160, 40)), picture(2, (90, 60))]


@functools.cache
def built(name: str) -> Built:
    return ZOO[name]()


@functools.cache
def loaded(name: str) -> DualEncoder | str:
    """The model as Isthmus reads it, or why it refuses."""
    zoo = built(name)
    try:
        return isthmus.load(zoo.model, processor={"image_processor": zoo.image_processor, "tokenizer": zoo.tokenizer})
    except IsthmusError as error:
        return str(error)


@dataclass(frozen=True)
class Cell:
    """One method on one model.

    Attributes:
        refused: for each side that the method is defined for, why it refuses, "" where it runs.
        found: the explanations of all pairs on the sides that run.
    """

    refused: dict[str, str]
    found: list[isthmus.Explanation]

    @property
    def sides(self) -> tuple[Any, ...]:
        return tuple(side for side, reason in self.refused.items() if not reason)


def explained(name: str, method: str, sides: Any, rows: slice = slice(None)) -> list[isthmus.Explanation]:
    model, options = loaded(name), OPTIONS.get(method, {})
    assert isinstance(model, DualEncoder)
    return isthmus.explain(model, pictures()[rows], TEXTS[rows], method=method, sides=sides, **options)


def cell(name: str, method: str) -> Cell:
    """Run a method on a model, on both sides at once where it can; whatever comes, the model stays as it was."""
    sides = METHODS[method].sides
    model = loaded(name)
    assert isinstance(model, DualEncoder)
    with untouched(model.model):
        try:
            return Cell(dict.fromkeys(sides, ""), explained(name, method, sides))
        except IsthmusError as error:
            if len(sides) == 1:
                return Cell({sides[0]: str(error)}, [])
    refused, found = dict.fromkeys(map(str, sides), ""), []
    for side in sides:
        with untouched(model.model):
            try:
                found = explained(name, method, (side,))
            except IsthmusError as error:
                refused[side] = str(error)
    assert any(refused.values()), "both sides run alone, but not together"
    return Cell(refused, found)
