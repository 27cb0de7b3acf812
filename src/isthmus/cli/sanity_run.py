"""Runs the checks of `isthmus sanity`: a row of figures for each method, side and check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isthmus.errors import InputError, IsthmusError, OptionError

if TYPE_CHECKING:
    from isthmus.encoders.dual import DualEncoder
    from isthmus.encoders.tower import Side
    from isthmus.explanation import Explanation

CHECKS = ("randomisation", "caption-swap", "batch", "repeat", "agreement")
_WITH_INTERVALS = ("randomisation", "caption-swap", "agreement")


@dataclass(frozen=True)
class CheckRow:
    """One figure of a check.

    Attributes:
        check: its name in `CHECKS`.
        method: the method's name.
        side: the explained side.
        value: for `batch` and `repeat` the largest difference over pairs, as a share of the map's largest score; else
            the mean of Spearman's rank correlation over pairs, in [-1, 1]. None where no pair has one.
        low, high: bootstrap interval of the mean; None where there is none.
        pairs: how many pairs have a value.
        block: for `randomisation` the block down to which weights were drawn anew, or which alone was.
        other: for `agreement` the other method.
    """

    check: str
    method: str
    side: Side
    value: float | None
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    block: int | None = None
    other: str = ""


@dataclass(frozen=True, eq=False)
class Checked:
    """Pairs to check: pictures, texts, and the sample that each is of, since pairs of one sample are drawn together."""

    images: tuple[Any, ...]
    texts: tuple[str, ...]
    samples: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """What to check.

    Attributes:
        methods, checks: names.
        options: for a method's name, its options and its preset.
        sides: the sides to check, as far as a method is defined for them.
        cascading, blocks, seed: see `isthmus.metrics.sanity.weight_randomisation`; the seed is the intervals' too.
    """

    methods: tuple[str, ...]
    checks: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]]
    sides: tuple[Side, ...]
    cascading: bool = True
    blocks: tuple[int, ...] | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse, before anything is computed, what cannot be done.

        Raises:
            OptionError: options of a method that has none such or is not checked; no method to agree with; no scipy.
        """
        from isthmus.benchmark.spec import specs_of
        from isthmus.extras import needed

        specs_of(self.methods, options=self.options, trivial=())
        if self.checks == ("agreement",) and len(self.methods) < 2:
            raise OptionError("Agreement is one between methods: name at least two.")
        if self.blocks is not None and not self.blocks:
            raise OptionError("There is no block to draw anew: name at least one in --blocks.")
        if set(self.checks) & set(_WITH_INTERVALS):
            needed("scipy.stats")

    def fitting(self, model: DualEncoder, pairs: Checked) -> tuple[Plan, dict[str, str]]:
        """The plan without the checks that these pairs are too few for, and for each of these why.

        Raises:
            InputError: no check is left.
            OptionError: the model has no such block.
        """
        from isthmus.metrics.sanity import chosen_blocks

        lacking = {}
        if len(set(pairs.texts)) < 2:
            lacking["caption-swap"] = "Swapping captions needs at least two that differ: raise --limit."
        if len(pairs.texts) < 2:
            lacking["batch"] = "A batch needs at least two pairs: raise --limit."
        lacking = {name: why for name, why in lacking.items() if name in self.checks}
        left = tuple(name for name in self.checks if name not in lacking)
        if not left:
            raise InputError(next(iter(lacking.values())))
        if "randomisation" in left:
            for side in self.sides:
                chosen_blocks(model.tower(side), self.blocks)
        return replace(self, checks=left), lacking


def measured(
    model: DualEncoder, pairs: Checked, plan: Plan, *, progress: Callable[[int, int, str], None] | None = None
) -> tuple[list[CheckRow], dict[str, str]]:
    """Make the checks, method by method.

    Args:
        model: the model to explain.
        pairs: what to explain.
        plan: methods, checks and their options.
        progress: told of the steps done, their number, and the one at work.

    Returns:
        The rows, and for each method that cannot explain this model or these pairs the sentence that says why.

    Raises:
        IsthmusError: no method is left; the sentence is the first one's.
    """
    rows: list[CheckRow] = []
    maps: dict[str, Sequence[Explanation]] = {}
    refused: dict[str, str] = {}
    steps = len(plan.checks) * len(plan.sides)
    total = len(plan.methods) * steps
    for number, name in enumerate(plan.methods):
        found = []
        try:
            for done, (label, part) in enumerate(_parts(model, pairs, plan, name, maps)):
                if progress is not None:
                    progress(number * steps + done, total, label)
                found += part()
        except IsthmusError as error:
            refused[name] = str(error)
            maps.pop(name, None)
            continue
        rows += found
    if len(refused) == len(plan.methods):
        raise IsthmusError(next(iter(refused.values())))
    if progress is not None:
        progress(total, total, "Checked")
    rows += _agreement(maps, pairs, plan.seed)
    return sorted(rows, key=lambda row: CHECKS.index(row.check)), refused


def _parts(
    model: DualEncoder, pairs: Checked, plan: Plan, name: str, maps: dict[str, Sequence[Explanation]]
) -> Iterator[tuple[str, Callable[[], list[CheckRow]]]]:
    """What is to be done for a method, with what it is called, the cheap first: there a method refuses."""
    from isthmus.methods import registry

    there = registry.get(name).sides
    sides = [side for side in plan.sides if side in there]
    if not sides:
        raise OptionError(f"{name} explains the {' and '.join(there)} alone: choose another --sides.")
    options = {"truncate": True, **plan.options.get(name, {})}

    def explained() -> list[CheckRow]:
        from isthmus.explainer import explain

        found = explain(model, list(pairs.images), list(pairs.texts), method=name, sides=sides, **options)
        assert isinstance(found, list)
        maps[name] = found
        return []

    def checked(check: str, side: Side) -> Callable[[], list[CheckRow]]:
        return lambda: _checked(model, pairs, plan, check, name, side, options)

    if "agreement" in plan.checks:
        yield f"{name}, agreement", explained
    for check in [one for one in reversed(CHECKS) if one in plan.checks and one != "agreement"]:
        for side in sides:
            yield f"{name}, {check}, {side}", checked(check, side)


def _checked(
    model: DualEncoder, pairs: Checked, plan: Plan, check: str, name: str, side: Side, options: Mapping[str, Any]
) -> list[CheckRow]:
    from isthmus.metrics import sanity

    given: dict[str, Any] = {"method": name, "sides": [side], "options": options}
    both = (model, pairs.images, pairs.texts)
    if check in ("batch", "repeat"):
        differences = {"batch": sanity.batch_invariance, "repeat": sanity.repeat_stability}[check](*both, **given)
        return [CheckRow(check, name, side, max(differences[side]), pairs=len(differences[side]))]
    if check == "caption-swap":
        swaps = sanity.caption_swap(*both, **given)
        return [_mean([row.spearman for row in swaps], pairs, plan.seed, check, name, side)]
    drawn = sanity.weight_randomisation(*both, cascading=plan.cascading, seed=plan.seed, steps=plan.blocks, **given)
    return [_mean(row.spearman, pairs, plan.seed, check, name, side, block=row.layer) for row in drawn]


def _mean(
    values: Sequence[float | None],
    pairs: Checked,
    seed: int,
    check: str,
    name: str,
    side: Side,
    *,
    block: int | None = None,
    other: str = "",
) -> CheckRow:
    """Mean with its interval over the pairs that have a value."""
    import numpy as np

    from isthmus.metrics.intervals import bootstrap_interval

    known = np.array([np.nan if value is None else value for value in values])
    there = np.isfinite(known)
    if not there.any():
        return CheckRow(check, name, side, None, block=block, other=other)
    low, high = (
        None if bound != bound else bound  # of one pair there is no interval
        for bound in bootstrap_interval(known, clusters=np.array(pairs.samples), seed=seed)
    )
    mean, count = float(known[there].mean()), int(there.sum())
    return CheckRow(check, name, side, mean, low, high, count, block, other)


def _agreement(maps: Mapping[str, Sequence[Explanation]], pairs: Checked, seed: int) -> list[CheckRow]:
    """A row for each two methods that both explain a side; none where only one method is left."""
    from isthmus.metrics.sanity import SIDES, agreement

    if len(maps) < 2:
        return []
    found = [agreement({name: [of[i]] for name, of in maps.items()}) for i in range(len(pairs.texts))]
    rows = []
    for side in SIDES:
        there = [(place, name) for place, (name, of) in enumerate(maps.items()) if getattr(of[0], side) is not None]
        for i, name in there:
            for j, other in there:
                values = [float(getattr(one, side)[i, j]) for one in found]
                rows.append(_mean(values, pairs, seed, "agreement", name, side, other=other))
    return rows
