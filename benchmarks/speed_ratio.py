"""NIB side by side: a plain loop as the published code runs it, captum, and Isthmus, on the same weights and pairs.

All take pictures that are resized and normalised already, and explain both sides. The plain loop and captum get token
ids; Isthmus is called as a user calls it, `isthmus.explain(model, pictures, texts, ...)`, and makes its own ids and
its whole result. Where Isthmus chooses its number of nodes, it takes, a side, the fewest with which the relative delta
is no worse than the loop's, median and worst over some pairs, and stays so with one node more, for a sum may be right
by chance. Deltas are of what each explains: of a text, the loop and the preset explain the score with the batch's mean
picture, the others that of the pair.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import isthmus
from speed_captum import integrated
from speed_machine import Point, spread, timed
from speed_models import Pairs, Shape, clip, encoder_of
from speed_plain import SIDES, STEPS, Missed, batch_deltas, pair_deltas, published

Deltas = Mapping[str, Sequence[Missed]]
_HOLDS = 2  # numbers of nodes in a row that must do
_MOST = 32
_ROUNDING = 1e-3  # of a delta: the preset is the loop, in another order of sums

TITLES = {
    "plain": f"plain loop, {STEPS} nodes",
    "captum": f"captum `LayerIntegratedGradients`, {STEPS} Gauss-Legendre nodes",
    "paper": f'Isthmus, `preset="paper"`, {STEPS} nodes',
    "zero": 'Isthmus, the same integral (`closed="zero"`)',
    "mean": 'Isthmus, the same layer, `closed="mean"`',
    "default": "Isthmus, all defaults: layer 0, 10 nodes",
    "zero-bfloat16": 'Isthmus, the same integral (`closed="zero"`), bfloat16',
    "mean-bfloat16": 'Isthmus, the same layer, `closed="mean"`, bfloat16',
}


@dataclass
class Contestant:
    """One way to explain pairs.

    Attributes:
        name: a key of `TITLES`.
        run: explains the sides named of pairs, with as many nodes a side as `steps` says.
        deltas: relative deltas of what `run` gave.
        steps: nodes of each side; None where they are not for us to choose.
        chooses: whether they are to be chosen.
    """

    name: str
    run: Callable[[Pairs, Sequence[str], Mapping[str, int] | None], Any]
    deltas: Callable[[Pairs, Any], Deltas]
    steps: dict[str, int] | None = None
    chooses: bool = False
    seconds: list[float] = field(default_factory=list)
    found: Deltas = field(default_factory=dict)


def plain(model: Any, shape: Shape) -> Contestant:
    """The published algorithm, in batches of the shape's rows."""

    def run(pairs: Pairs, sides: Sequence[str], steps: Mapping[str, int] | None) -> Any:  # noqa: ARG001
        found = [published(model, part.pixels, part.ids, shape.layer, STEPS) for part in pairs.parts(shape.rows)]
        model.zero_grad(set_to_none=True)
        return found

    def deltas(pairs: Pairs, found: Any) -> Deltas:
        parts = zip(pairs.parts(shape.rows), found, strict=True)
        each = [batch_deltas(model, part, shape.layer, maps) for part, maps in parts]
        return {side: [value for one in each for value in one[side]] for side in SIDES}

    return Contestant("plain", run, deltas)


def captum(encoder: isthmus.DualEncoder, shape: Shape) -> Contestant:
    """captum on the whole model, of the same integral, with as many nodes as the loop."""

    def run(pairs: Pairs, sides: Sequence[str], steps: Mapping[str, int] | None) -> Any:  # noqa: ARG001
        chosen = {"layer": shape.layer, "rows": shape.rows, "steps": STEPS}
        return {side: integrated(encoder, pairs, side, **chosen) for side in sides}

    def deltas(pairs: Pairs, found: Any) -> Deltas:
        totals = {side: [float(one.double().sum()) for one in scores] for side, scores in found.items()}
        return pair_deltas(encoder.model, pairs, shape.layer, totals)

    return Contestant("captum", run, deltas)


def ours(encoder: isthmus.DualEncoder, name: str, options: Mapping[str, Any], *, chooses: bool = True) -> Contestant:
    """`isthmus.explain` with these options."""

    def run(pairs: Pairs, sides: Sequence[str], steps: Mapping[str, int] | None) -> Any:
        more: dict[str, Any] = {} if steps is None else {"steps": dict(steps)}
        return isthmus.explain(encoder, pairs.pictures, pairs.texts, sides=tuple(sides), **options, **more)

    def deltas(pairs: Pairs, found: Any) -> Deltas:
        there = [side for side in SIDES if getattr(found[0], side) is not None]
        factors = [1] * len(pairs)
        if "preset" in options:  # its pictures' scores are divided by the batch, as published
            factors = [len(part) for part in pairs.parts(options["batch_size"]) for _ in range(len(part))]
        return {side: [_delta(one, side, factor) for one, factor in zip(found, factors, strict=True)] for side in there}

    return Contestant(name, run, deltas, chooses=chooses)


def _delta(one: isthmus.Explanation, side: str, factor: int) -> Missed:
    known = getattr(one, side).completeness
    change = known.open - known.closed
    return Missed(known.total * (factor if side == "image" else 1) - change, change)


def contestants(shape: Shape, names: Sequence[str], device: str) -> Iterator[Contestant]:
    """Those of these names, all on the same weights; the plain loop comes first, as published in float32."""
    late = {"layer": shape.layer}
    options: dict[str, dict[str, Any]] = {
        "zero": {**late, "closed": "zero", "special": "closed", "rule": "gauss-legendre-sinh"},
        "mean": {**late, "closed": "mean", "rule": "gauss-legendre"},
    }
    encoder = encoder_of(clip(shape, device=device), shape)
    half = None
    yield plain(encoder.model, shape)
    for name in (one for one in TITLES if one in names and one != "plain"):
        if name == "captum":
            yield captum(encoder, shape)
        elif name == "paper":
            published_options = {"preset": "paper", **late, "batch_size": shape.rows}
            yield ours(encoder, name, published_options, chooses=False)
        elif name == "default":
            yield ours(encoder, name, {}, chooses=False)
        elif name in options:
            yield ours(encoder, name, options[name])
        else:
            half = half or encoder_of(clip(shape, dtype="bfloat16", device=device), shape)
            yield ours(half, name, options[name.removesuffix("-bfloat16")])


def measures(values: Sequence[Missed]) -> dict[str, float]:
    """Relative deltas: the median pair's, that of all pairs together, and the worst pair's.

    That of one pair has no bound where its change is near zero; that of all, what they miss over what they change,
    does not hang on such a pair.
    """
    relative = [one.relative for one in values]
    together = sum(abs(one.delta) for one in values) / sum(abs(one.change) for one in values)
    return {"median": statistics.median(relative), "all": together, "worst": max(relative)}


def no_worse(found: Deltas, goal: Deltas, by: Sequence[str] = ("median", "all", "worst")) -> bool:
    """Whether these measures of the deltas are at most the goal's, on every side of `found`."""
    allowed = 1 + _ROUNDING
    both = [(measures(values), measures(goal[side])) for side, values in found.items()]
    return all(own[name] <= allowed * other[name] for own, other in both for name in by)


def fewest_steps(one: Contestant, pairs: Pairs, goal: Deltas) -> dict[str, int]:
    """The fewest nodes of each side from which on the deltas of these pairs are no worse than the goal's."""
    chosen = {}
    for side in SIDES:
        held, steps = 0, 0
        while held < _HOLDS and steps < _MOST:
            steps += 1
            found = one.deltas(pairs, one.run(pairs, [side], {side: steps}))
            held = held + 1 if no_worse(found, goal) else 0
        chosen[side] = max(1, steps - _HOLDS + 1)
    return chosen


def choose(running: Sequence[Contestant], pairs: Pairs) -> None:
    """Give each contestant that chooses its number of nodes; the first is the plain loop."""
    goal = running[0].deltas(pairs, running[0].run(pairs, SIDES, None))
    for one in running:
        if one.chooses:
            one.steps = fewest_steps(one, pairs, goal)
            print(f"    {one.name:<14} needs {_nodes(one)}", flush=True)


def compare(running: Sequence[Contestant], pairs: Pairs, device: str, *, repeats: int, limit: float) -> Point:
    """Times of all contestants in turn, the first of them the plain loop, and their deltas.

    Args:
        running: the contestants, their numbers of nodes chosen.
        pairs: what they explain.
        device: where.
        repeats: rounds at most, each begins with another contestant.
        limit: seconds after which no further round begins.
    """
    for one in running:
        one.seconds, one.found = [], {}
        one.run(pairs.first(1), SIDES, one.steps)  # warm: what is made once for a model is made
    spent = 0.0
    for number in range(repeats):
        if spent > limit:
            break
        start = number % len(running)
        for one in (*running[start:], *running[:start]):
            found, seconds = timed(lambda one=one: one.run(pairs, SIDES, one.steps), device)  # type: ignore[misc]
            one.seconds.append(seconds)
            spent += seconds
            if not one.found:
                one.found = one.deltas(pairs, found)
                print(f"    {one.name:<14}{seconds:9.3f} s  {_nodes(one)}  deltas {_medians(one.found)}", flush=True)
    return {"pairs": len(pairs), "contestants": {one.name: _row(one, running[0]) for one in running}}


def _row(one: Contestant, first: Contestant) -> dict[str, Any]:
    return {
        **spread(one.seconds),
        "steps": one.steps,
        "deltas": {side: measures(values) for side, values in one.found.items()},
        "as_complete": no_worse(one.found, first.found),
        "as_complete_but_worst": no_worse(one.found, first.found, ("median", "all")),
        "times_plain": statistics.median(first.seconds) / statistics.median(one.seconds),
    }


def _nodes(one: Contestant) -> str:
    return "nodes " + ("fixed" if one.steps is None else "/".join(str(one.steps[side]) for side in SIDES))


def _medians(deltas: Deltas) -> str:
    return " / ".join(f"{measures(deltas[side])['median']:.2%}" for side in SIDES if side in deltas)
