"""Maps that know nothing of the model: what every method must beat, and the greedy oracle that none should.

"random" and "centre" are orders of importance; "flat" is 0.99 everywhere, which the paper's metric rewards.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from isthmus.encoders.tower import Side
from isthmus.errors import OptionError
from isthmus.metrics.maps import Map
from isthmus.metrics.pairs import Judged, Pairs

FLAT = 0.99


def random_map(pairs: Pairs, row: int, side: Side) -> Map:
    """Scores drawn evenly from [0, 1], by the pair's id and the seed."""
    shape = _shape(pairs, row, side)
    drawn = torch.rand(shape, generator=pairs.generator(row, f"random {side}"))
    return Map(drawn.numpy(), dict.fromkeys(_special(pairs, row, side), 0.5), fixed=True)


def flat_map(pairs: Pairs, row: int, side: Side) -> Map:
    """0.99 everywhere: near nothing is taken away."""
    scores = torch.full(_shape(pairs, row, side), FLAT)
    return Map(scores.numpy(), dict.fromkeys(_special(pairs, row, side), FLAT), fixed=True)


def centre_map(pairs: Pairs, row: int, side: Side) -> Map:
    """A picture's centre first: a Gaussian with a standard deviation of a quarter of each side; a text's middle."""
    scores = torch.ones(())
    for length in _shape(pairs, row, side):
        line = (torch.arange(length) + 0.5) / length - 0.5
        scores = scores[..., None] * torch.exp(-0.5 * (line / 0.25) ** 2)
    return Map(scores.numpy(), dict.fromkeys(_special(pairs, row, side), 0.0), fixed=True)


TRIVIAL: dict[str, Callable[[Pairs, int, Side], Map]] = {"random": random_map, "flat": flat_map, "centre": centre_map}


def trivial(pairs: Pairs, name: str, sides: tuple[Side, ...] = ("image", "text")) -> Judged:
    """The trivial maps of a name for all pairs.

    Raises:
        OptionError: no such map.
    """
    if name not in TRIVIAL:
        raise OptionError(f"There is no trivial map {name!r}: choose one of {', '.join(TRIVIAL)}.")
    make = TRIVIAL[name]
    return Judged(pairs, {side: tuple(make(pairs, row, side) for row in range(len(pairs))) for side in sides}, name)


def _shape(pairs: Pairs, row: int, side: Side) -> tuple[int, ...]:
    layout = pairs.layouts[side][row]
    return layout.grid if layout.grid is not None else (len(layout.pieces),)


def _special(pairs: Pairs, row: int, side: Side) -> tuple[int, ...]:
    return tuple(position for _, position in pairs.layouts[side][row].special)
