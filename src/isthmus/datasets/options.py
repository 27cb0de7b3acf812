"""What a reader is told beside the place of the data, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from isthmus.datasets.records import Failure
from isthmus.datasets.sample import Sample

Items: TypeAlias = Iterator[Sample | Failure]
Reader: TypeAlias = Callable[[], Items]
ClassNames: TypeAlias = Literal["all", "first"]


@dataclass(frozen=True)
class Options:
    """The options of `open_dataset`, which explains them."""

    split: str | None = None
    image_column: str | None = None
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    config: str | None = None
    streaming: bool = False
    texts: tuple[str, ...] = ()
    seed: int = 0
    per_class: int | None = None
    class_names: ClassNames = "all"


_SAME = ({"val", "valid", "validation", "dev"}, {"train", "training"}, {"test", "testing"})


def same_split(one: str, other: str) -> bool:
    """Whether two names mean one split, as `dev`, `val` and `validation` do."""
    a, b = one.lower(), other.lower()
    return a == b or any(a in names and b in names for names in _SAME)


def split_names(split: str) -> tuple[str, ...]:
    """A split's name, and the other names that it goes by."""
    others = next((names for names in _SAME if split.lower() in names), set())
    return (split, *sorted(others - {split}))
