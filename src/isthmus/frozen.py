"""What keeps results frozen: read-only arrays and mappings, and equality that looks inside them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Comparable:
    """Equality of dataclasses that looks inside arrays, so that a saved and loaded result equals the original."""

    def __eq__(self, other: object) -> bool:
        """Equal in type and in every field."""
        if type(self) is not type(other):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        equal_nan = a.dtype.kind == "f"
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=equal_nan)
    if isinstance(a, float) and isinstance(b, float) and a != a:
        return b != b  # two that are undefined are the same result
    return not isinstance(a, np.ndarray) and not isinstance(b, np.ndarray) and bool(a == b)


class Frozen(dict[str, Any]):
    """A dict that cannot be changed; unlike a mappingproxy it can be pickled and written as JSON."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("An explanation is read-only: make a changed copy with dataclasses.replace.")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __reduce__(self) -> tuple[type[Frozen], tuple[dict[str, Any]]]:
        """Pickle as a whole: the parts could not be set."""
        return Frozen, (dict(self),)


def freeze(item: object, *names: str) -> None:
    """Make mappings among an item's attributes read-only."""
    for name in names:
        object.__setattr__(item, name, Frozen(getattr(item, name)))


def seal(item: object, *names: str) -> None:
    """Make arrays among an item's attributes read-only copies; None stays None."""
    for name in names:
        array = getattr(item, name)
        if array is not None:
            array = np.array(array)
            array.flags.writeable = False
            object.__setattr__(item, name, array)
