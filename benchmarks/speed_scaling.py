"""How speed grows with the number of pairs, and with the number of texts of one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import isthmus
from speed_machine import Point, spread, timed
from speed_models import Pairs


def rate(
    encoder: isthmus.DualEncoder,
    pairs: Pairs,
    options: Mapping[str, Any],
    *,
    device: str,
    repeats: int,
    limit: float,
    one_picture: bool = False,
) -> Point:
    """Pairs a second of one call of `isthmus.explain` on all pairs, or on the first picture with all texts.

    No repeat begins once `limit` seconds are spent.
    """
    pictures: Any = pairs.pictures[0] if one_picture else pairs.pictures
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) <= limit:
        _, taken = timed(lambda: isthmus.explain(encoder, pictures, pairs.texts, **options), device)
        seconds.append(taken)
    times = spread(seconds)
    print(f"    {times['seconds']:9.3f} s  {len(pairs) / times['seconds']:,.2f} pairs a second", flush=True)
    return {**times, "pairs": len(pairs), "rate": len(pairs) / times["seconds"]}
