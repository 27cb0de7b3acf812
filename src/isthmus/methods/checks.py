"""Checks of options that many methods share, and how a result states them."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from torch import Tensor

from isthmus.errors import OptionError


def whole(name: str, value: Any, least: int) -> int:
    """An option that must be a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return int(value)


def positive(name: str, value: Any) -> float:
    """An option that must be a number over 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise OptionError(f"{name} must be a number over 0, not {value!r}.")
    return float(value)


def probability(name: str, value: Any) -> float:
    """An option that must lie between 0 and 1, neither included."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1:
        raise OptionError(f"{name} must lie between 0 and 1, not {value!r}.")
    return float(value)


def stated(replacement: str | Tensor) -> dict[str, Any]:
    """The replacement as a result states it."""
    return {"replacement": replacement if isinstance(replacement, str) else f"tensor {tuple(replacement.shape)}"}
