"""Closed states: what stands for "no information" where a gate is closed."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.encoders.split import Split
from isthmus.encoders.tower import accumulator
from isthmus.errors import OptionError


def closed_state(split: Split, closed: str | Tensor, floor: float | None) -> tuple[Tensor, dict[str, Any]]:
    """The state c, `(B, T, d)` in float32 or better, and what a result says of it.

    Args:
        split: the cut.
        closed: "zero", "floor", "mean", or a tensor that broadcasts to the features.
        floor: what "floor" leaves of the features, by default 0.1.
    """
    if floor is not None and not (isinstance(closed, str) and closed == "floor"):
        raise OptionError('floor applies to closed="floor" alone.')
    floor = 0.1 if floor is None else floor
    hidden = split.hidden.to(accumulator(split.hidden.dtype))
    if isinstance(closed, np.ndarray):
        closed = torch.from_numpy(closed)
    if isinstance(closed, Tensor):
        if not bool(torch.isfinite(closed).all()):
            raise OptionError("The closed state holds values that are NaN or infinite.")
        try:
            return closed.to(hidden).expand_as(hidden), {"closed": "tensor"}
        except RuntimeError as error:
            raise OptionError(
                f"The closed state has shape {tuple(closed.shape)}, which does not fit the features' "
                f"{tuple(hidden.shape)} (inputs, positions, channels)."
            ) from error
    if closed == "floor" and not (isinstance(floor, Real) and 0 <= floor < 1):
        raise OptionError(f"floor must be at least 0 and less than 1, not {floor!r}.")
    states: dict[str, Callable[[], Tensor]] = {
        "zero": lambda: torch.zeros_like(hidden),
        "floor": lambda: floor * hidden,
        "mean": lambda: _everywhere(split.tower.mean_state(split.layer).to(hidden), hidden),
    }
    if not isinstance(closed, str) or closed not in states:
        raise OptionError(f"There is no closed state {closed!r}: choose zero, floor, mean, or give a tensor.")
    return states[closed](), {"closed": closed} | ({"floor": floor} if closed == "floor" else {})


def _everywhere(state: Tensor, hidden: Tensor) -> Tensor:
    """One state `(d,)` at all positions `(B, T, d)`, or all places of a grid `(B, d, H, W)`."""
    return (state[:, None, None] if hidden.ndim == 4 else state).expand_as(hidden)
