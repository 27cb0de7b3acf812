"""Makes the maps of one batch, and with them those of settings that share their cost; pair by pair where it fails."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.assembly import image_attribution, rows_of, text_attribution
from isthmus.benchmark.plan import Plan
from isthmus.benchmark.questions import some_of
from isthmus.benchmark.spec import Spec
from isthmus.benchmark.store import Cost, Explained, Maps
from isthmus.encoders.counting import counted
from isthmus.encoders.tower import Side
from isthmus.errors import IsthmusError, OptionError
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


def explained_at_all(
    plan: Plan, spec: Spec, pairs: Pairs, pictures: Sequence[Any], *, served: bool
) -> dict[Spec, Explained]:
    """As `explained`; a batch that fails is explained pair by pair, so that only those are lost that fail themselves.

    Not with `preset="paper"`, whose maps depend on the rest of the batch.

    Args:
        plan, spec, pairs, pictures: what to explain.
        served: whether the spec has explained any pair; else an error of its options is a refusal of them.

    Raises:
        IsthmusError: the method cannot explain this model, or its only pair.
    """
    try:
        return {one: Explained(*own) for one, own in explained(plan, spec, pairs, pictures).items()}
    except IsthmusError as error:
        if len(pairs) == 1 or spec.preset == "paper" or (isinstance(error, OptionError) and not served):
            raise
    return _one_by_one(plan, spec, pairs, pictures)


def explained_again(plan: Plan, spec: Spec, pairs: Pairs, pictures: Sequence[Any], kept: Explained) -> Explained:
    """What was explained of a batch, with those that failed tried again, and no other."""
    places = [i for i, name in enumerate(pairs.ids) if name in kept.failed]
    new = _one_by_one(plan, spec, *some_of(pairs, pictures, places))[spec]
    if not new.maps:
        return Explained(kept.maps, kept.cost, new.failed)
    own = dict(_apart(kept, pairs.ids)) | dict(_apart(new, [pairs.ids[i] for i in places]))
    return _joined({name: own[name] for name in pairs.ids if name in own}, new.failed)


def _one_by_one(plan: Plan, spec: Spec, pairs: Pairs, pictures: Sequence[Any]) -> dict[Spec, Explained]:
    found: dict[Spec, dict[str, tuple[Maps, Cost]]] = {spec: {}}
    failed: dict[str, str] = {}
    for i, name in enumerate(pairs.ids):
        try:
            for one, own in explained(plan, spec, *some_of(pairs, pictures, [i])).items():
                found.setdefault(one, {})[name] = own
        except IsthmusError as error:
            failed[name] = str(error)
    return {one: _joined(own, failed) for one, own in found.items()}


def _joined(own: Mapping[str, tuple[Maps, Cost]], failed: Mapping[str, str]) -> Explained:
    """One batch of pairs that were explained alone; sides that not all of them have are left out."""
    maps, costs = [one for one, _ in own.values()], [cost for _, cost in own.values()]
    sides = [side for side in (maps[0] if maps else ()) if all(side in one for one in maps)]
    took = (sum(vars(cost)[name] for cost in costs) / max(1, len(costs)) for name in ("seconds", "forward", "backward"))
    return Explained({side: tuple(one[side][0] for one in maps) for side in sides}, Cost(*took), failed)


def _apart(found: Explained, ids: Sequence[str]) -> list[tuple[str, tuple[Maps, Cost]]]:
    """The reverse of `_joined`."""
    good = [name for name in ids if name not in found.failed]
    return [(name, ({side: (own[i],) for side, own in found.maps.items()}, found.cost)) for i, name in enumerate(good)]


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
