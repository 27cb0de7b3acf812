"""measure(): one metric of explanations, without a benchmark run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.tower import Side
from isthmus.errors import InputError, OptionError
from isthmus.explanation import Explanation
from isthmus.frozen import Array
from isthmus.metrics import registry
from isthmus.metrics.pairs import Judged, judged


def measure(
    explanations: Explanation | Sequence[Explanation] | Judged,
    model: DualEncoder,
    metric: str,
    side: Side,
    *,
    variant: str | None = None,
    images: Sequence[Any] | None = None,
    **options: Any,
) -> Array:
    """One number for each pair.

    Args:
        explanations: what `isthmus.explain` gives, of one method; or a `Judged`, which holds regions or wrong words for
            the metrics that need them, and shares what several metrics compute.
        model: the model that they explain.
        metric: a name of `isthmus.metrics.METRICS`.
        side: "image" or "text".
        variant: a named set of options, such as "margin" of insertion; None for the function's own defaults.
        images: the pictures, where the explanations do not name their path.
        options: the function's own, such as `replacement="blur"`.

    Returns:
        `(pairs,)` float64, NaN where a pair has no value; unit and direction are the metric's.

    Raises:
        InputError: explanations that cannot be judged, such as those of one side.
        OptionError: no such metric, side, variant or option.
    """
    found = registry.get(metric)
    if side not in found.sides:
        raise OptionError(f"{metric} is not defined for the {side} side: choose {' or '.join(found.sides)}.")
    if variant is not None and variant not in found.variants:
        raise OptionError(f"{metric} has no variant {variant!r}: choose one of {', '.join(found.variants)}.")
    takes = registry.options_of(found)
    for name in options:
        if name not in takes:
            raise OptionError(f"{metric} has no option {name!r}: it has {', '.join(takes) or 'none'}.")
    if isinstance(explanations, Explanation):
        explanations = [explanations]
    if not isinstance(explanations, (Judged, list, tuple)) or not all(
        isinstance(one, Explanation) for one in ([] if isinstance(explanations, Judged) else explanations)
    ):
        raise InputError("A metric takes explanations of isthmus.explain, or a Judged of them.")
    if not isinstance(explanations, Judged):
        if found.question != "caption":
            raise InputError(
                f"{metric} needs to know where things are, or which word is wrong: give a Judged of such pairs."
            )
        explanations = judged(explanations, model, images)
    own = {} if variant is None else found.variants[variant]
    values: Array = found.function(explanations, side, **{**own, **options}).numpy()
    return values
