"""Makes the maps of one batch, and with them those of settings that share their cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from isthmus.assembly import image_attribution, rows_of, text_attribution
from isthmus.benchmark.plan import Plan
from isthmus.benchmark.spec import Spec
from isthmus.benchmark.store import Cost, Maps
from isthmus.encoders.counting import counted
from isthmus.encoders.tower import Side
from isthmus.explainer import explain
from isthmus.methods.nib import nib_sweep
from isthmus.metrics.maps import Map, map_of, map_of_side
from isthmus.metrics.pairs import Pairs


def explained(plan: Plan, spec: Spec, pairs: Pairs, pictures: Sequence[Any]) -> dict[Spec, tuple[Maps, Cost]]:
    """The maps of a spec on a batch; of its siblings too, where they differ from it in the number of NIB's steps alone.

    Raises:
        IsthmusError: the method cannot explain this model.
    """
    sides: list[Side] = [side for side in plan.sides if side in spec.sides]
    siblings = [one for one in plan.specs if _swept(one) and _but_steps(one) == _but_steps(spec)]
    if _swept(spec) and len(siblings) > 1:
        return _sweep(siblings, pairs, sides)
    found = explain(
        plan.model,
        list(pictures),
        list(pairs.texts),
        method=spec.method,
        preset=spec.preset,
        sides=sides,
        truncate=True,
        batch_size=plan.batch_size,
        **spec.options,
    )
    assert isinstance(found, list), "several pairs give a list"
    told = found[0].provenance
    cost = Cost(told.seconds, told.passes.get("forward", 0.0), told.passes.get("backward", 0.0))
    return {spec: ({side: tuple(map_of(one, side) for one in found) for side in sides}, cost)}


def _swept(spec: Spec) -> bool:
    steps = spec.options.get("steps")
    return spec.method == "nib" and isinstance(steps, int) and set(spec.options) <= {"steps", "layer"}


def _but_steps(spec: Spec) -> tuple[Any, ...]:
    return str(spec.options.get("layer")), spec.preset


def _sweep(specs: Sequence[Spec], pairs: Pairs, sides: Sequence[Side]) -> dict[Spec, tuple[Maps, Cost]]:
    """All numbers of steps from one pass up to the layer and one for each node; each is told its share of the cost."""
    began = time.perf_counter()
    maps: dict[Spec, Maps] = {spec: {} for spec in specs}
    with counted() as passes:
        for side in sides:
            layer = specs[0].options.get("layer")
            found = nib_sweep(
                pairs.model.tower(side),
                pairs.inputs[side],
                pairs.target(side),
                steps=[int(spec.options["steps"]) for spec in specs],
                layer=layer.get(side) if isinstance(layer, dict) else layer,
                preset=specs[0].preset,
                layouts=pairs.layouts[side],
            )
            for spec in specs:
                maps[spec][side] = _maps(pairs, side, found[int(spec.options["steps"])])
    share = 1 / (len(pairs) * len(specs))
    took = (time.perf_counter() - began) * share
    cost = Cost(took, passes.get("forward", 0) * share, passes.get("backward", 0) * share)
    return {spec: (own, cost) for spec, own in maps.items()}


def _maps(pairs: Pairs, side: Side, found: Any) -> tuple[Map, ...]:
    rows, layouts = rows_of(found), pairs.layouts[side]
    if side == "image":
        return tuple(
            map_of_side(image_attribution(row, layout, frame, ""))
            for row, layout, frame in zip(rows, layouts, pairs.frames, strict=True)
        )
    return tuple(
        map_of_side(text_attribution(row, layout, text, ""))
        for row, layout, text in zip(rows, layouts, pairs.texts, strict=True)
    )
