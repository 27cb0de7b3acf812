"""How much all visits keep in memory, and what is let go of where that is too much."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from isthmus.app import history
from isthmus.app.gallery import Gallery, Restored
from isthmus.app.saving import Shown
from isthmus.app.stored import Stored, stored_in
from isthmus.app.work import Visit
from isthmus.explanation import Explanation


def weigh(values: Iterable[Any]) -> int:
    """Bytes of the pictures, arrays and uploads that a visit's values keep; what several have counts once."""
    return sum({id(one): size for value in values for one, size in _parts(value)}.values())


def lighten(visits: Mapping[str, list[Any]], most: int, forget: Callable[[str], None]) -> None:
    """Have all visits keep at most `most` bytes.

    The former results go first, then all of a visit; each time of those visits first that were not used for longest.

    Args:
        visits: the values that each one keeps, the one first that was not used for longest.
        most: bytes.
        forget: is told a visit of which nothing is to be kept; never the last one, which is at work.
    """
    weights = {name: weigh(values) for name, values in visits.items()}
    over = sum(weights.values()) - most
    for name, values in visits.items():
        if over <= 0:
            return
        for value in values:
            if isinstance(value, Visit):
                history.thin(value)
        over -= weights[name] - weigh(values)
        weights[name] = weigh(values)
    for name in [*visits][:-1]:
        if over <= 0:
            return
        forget(name)
        over -= weights[name]


def _parts(value: Any) -> Iterator[tuple[Any, int]]:
    """What is large in a value, with its bytes."""
    if isinstance(value, Visit):
        yield value.store, value.store.size
        for answer in [one for one in value.answers if one is not None]:
            yield from _picture(stored_in(answer.question))
            yield from _arrays(answer.explanation)
    elif isinstance(value, Shown):
        yield from _picture(stored_in(value))
        if not isinstance(value.explanations, Restored):  # those of a gallery are made when they are looked at
            for one in value.explanations:
                yield from _arrays(one)
    elif isinstance(value, Gallery):
        for item in [*value.items]:
            yield item.upload.data, len(item.upload.data)
            yield item.card, len(item.card.get("picture") or "")
            yield from _arrays(item.explanation)


def _picture(kept: Stored | None) -> Iterator[tuple[Any, int]]:
    if kept is not None:
        yield kept, kept.weight


def _arrays(one: Explanation) -> Iterator[tuple[Any, int]]:
    if one.picture is not None:
        yield one.picture, one.picture.nbytes
    for side in (one.image, one.joint):
        if side is not None:
            yield side.scores, side.scores.nbytes
