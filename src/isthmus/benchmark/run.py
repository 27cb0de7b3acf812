"""run(): evaluate a plan batch by batch, in a folder that can be gone on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus.benchmark.explaining import explained
from isthmus.benchmark.plan import Plan, Wanted
from isthmus.benchmark.questions import Item, items_of, opened
from isthmus.benchmark.spec import ORACLE, Spec
from isthmus.benchmark.store import Cost, Row, Store
from isthmus.benchmark.summary import COSTS
from isthmus.datasets.records import Failure
from isthmus.encoders.tower import Side
from isthmus.errors import InputError, IsthmusError, OptionError, SaveError
from isthmus.extras import needed
from isthmus.metrics.oracle import oracle
from isthmus.metrics.pairs import Judged, Pairs
from isthmus.metrics.ranking import curve, deletion, insertion
from isthmus.metrics.registry import Metric, Question
from isthmus.metrics.trivial import trivial

Progress = Callable[[int, int, str], None]


@dataclass
class Outcome:
    """What a run gives.

    Attributes:
        rows: a `pyarrow.Table`: dataset, pair, method, metric, side, variant, value, curve.
        failed: pairs and samples that could not be used.
        refused: for a spec's label the sentence of a method that cannot explain this model, or any pair.
        skipped: for a metric's name why the dataset gives it nothing to measure.
    """

    rows: Any = None
    failed: list[Failure] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def run(plan: Plan, folder: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Outcome:
    """Evaluate a plan; what the folder holds already is not computed again.

    Args:
        plan: what to evaluate.
        folder: where the parts, `rows.parquet`, `run.json` and `sample.txt` go.
        overwrite: begin anew.
        progress: told of parts done, their number, and the one at work.

    Raises:
        OptionError: the folder holds a run with other settings; pyarrow is missing.
        InputError: the dataset gives none of the metrics anything to measure.
        SaveError: the disk is full, or the folder cannot be written.
        IsthmusError: no method can explain this model.
    """
    needed("pyarrow.parquet")  # before anything is computed
    store = Store(folder)
    store.begin(plan.settings(), overwrite=overwrite)
    store.write("sample.txt", "".join(f"{sample.id}\n" for sample in plan.samples).encode("utf-8", "surrogatepass"))
    work = _Work(plan, store, Outcome())
    batches = work.batches()
    work.check()
    total, done = len(batches) * len(plan.specs), 0
    for batch in batches:
        for spec in plan.specs:
            if progress is not None:
                progress(done, total, spec.label)
            work.part(batch, spec)
            work.check()
            done += 1
        batch.close()
    if progress is not None:
        progress(total, total, "")
    work.finish()
    work.check()
    work.outcome.rows = store.gather(
        (batch.part(spec) for spec in plan.specs for batch in batches), [spec.label for spec in plan.specs]
    )
    return work.outcome


@dataclass
class _Batch:
    """Some items of one question, opened when first needed."""

    question: Question
    start: int
    number: int
    items: Sequence[Item]
    found: tuple[Pairs | None, list[Any]] | None = None

    def part(self, spec: Spec) -> str:
        return f"{self.question}-{self.number:05d}-{spec.key}"

    def close(self) -> None:
        self.found = None


@dataclass
class _Work:
    plan: Plan
    store: Store
    outcome: Outcome
    served: set[str] = field(default_factory=set)  # labels of specs that explained a batch
    lost: dict[str, list[tuple[tuple[str, ...], str]]] = field(default_factory=dict)  # what they did not, and why

    def batches(self) -> list[_Batch]:
        plan, found = self.plan, []
        for metric in plan.metrics:
            if not set(metric.sides) & set(plan.sides):
                self.outcome.skipped[metric.name] = f"This judges the {' and '.join(metric.sides)} alone"
        for question in plan.questions:
            items = items_of(
                plan.samples,
                question,
                plan.model,
                choice=plan.choice,
                seed=plan.seed,
                batch_size=plan.batch_size,
                failed=self.outcome.failed.append,
            )
            if not items:
                self.outcome.skipped |= {one.name: self._lacking(question) for one in plan.metrics_of(question)}
            size = plan.batch_size
            for number, start in enumerate(range(0, len(items), size)):
                found.append(_Batch(question, start, number, items[start : start + size]))
        if not found:
            raise InputError(f"{next(iter(self.outcome.skipped.values()))}: choose another sample or other metrics.")
        for spec in plan.specs:
            if not spec.trivial and not any(plan.wanted(spec, batch.question, 0) for batch in found):
                sides = " and ".join(spec.sides)
                self.outcome.refused[spec.label] = (
                    f"{spec.method} explains the {sides} alone, which no metric asks for."
                )
        return found

    def _lacking(self, question: Question) -> str:
        dataset, failed = self.plan.dataset, self.outcome.failed
        if question != "caption":
            needs = "masks or boxes" if question == "region" else "caption with a word that can be swapped"
            return f"The sample of {dataset} has no {needs}"
        first = f" (the first, {failed[0].id!r}: {failed[0].reason.rstrip('.')})" if failed else ""
        return f"None of the {len(self.plan.samples)} samples of {dataset} can be used{first}"

    def check(self) -> None:
        """Stop where no method is left to judge."""
        if len(self.outcome.refused) == len([spec for spec in self.plan.specs if not spec.trivial]) > 0:
            raise IsthmusError(next(iter(self.outcome.refused.values())))

    def finish(self) -> None:
        """Tell a method that explained no batch from one that failed on some."""
        for label, lost in self.lost.items():
            if label in self.served:
                self.outcome.failed += [Failure(name, f"{label}: {why}") for names, why in lost for name in names]
            else:
                self.outcome.refused.setdefault(label, lost[0][1])
        self.outcome.failed = list({(one.id, one.reason): one for one in self.outcome.failed}.values())

    def part(self, batch: _Batch, spec: Spec) -> None:
        """Make the rows of one part that are not there yet."""
        wanted = self.plan.wanted(spec, batch.question, batch.start)
        if not wanted or spec.label in self.outcome.refused:
            return
        rows = self.store.rows(batch.part(spec))
        missing = _missing(wanted, rows)
        if missing or not _of(rows, [item.id for item in batch.items]):
            pairs, pictures = self._opened(batch)
            if pairs is None:
                return
            if not _of(rows, pairs.ids):  # other pictures could be read then
                rows, missing = [], wanted
            if missing and not self._measured(batch, spec, pairs, pictures, rows, missing):
                return
        self.served.add(spec.label)

    def _opened(self, batch: _Batch) -> tuple[Pairs | None, list[Any]]:
        if batch.found is None:
            batch.found = opened(batch.items, self.plan.model, seed=self.plan.seed, failed=self.outcome.failed.append)
        return batch.found

    def _measured(
        self,
        batch: _Batch,
        spec: Spec,
        pairs: Pairs,
        pictures: Sequence[Any],
        rows: list[Row],
        missing: Sequence[Wanted],
    ) -> bool:
        """Add what is missing to the rows of a part and keep them; False where the method fails."""
        try:
            judged, cost = self._judged(batch, spec, pairs, pictures)
        except SaveError:
            raise
        except IsthmusError as error:
            self.lost.setdefault(spec.label, []).append((pairs.ids, str(error)))
            if isinstance(error, OptionError) and spec.label not in self.served:
                self.outcome.refused[spec.label] = str(error)
            return False
        for metric, side, variant, options in missing:
            rows += self._rows(pairs, judged, spec, metric, side, variant, options)
        if cost is not None and batch.question == "caption":
            rows = [row for row in rows if row.metric not in COSTS]
            for name in COSTS:
                rows += [self._row(i, pairs, spec, name, "", "", vars(cost)[name]) for i in range(len(pairs))]
        self.store.keep_rows(batch.part(spec), rows)
        return True

    def _judged(
        self, batch: _Batch, spec: Spec, pairs: Pairs, pictures: Sequence[Any]
    ) -> tuple[Judged | None, Cost | None]:
        """The maps of a spec: from the store, or made and stored; none for the oracle, which has one a metric."""
        if spec.method == ORACLE:
            return None, None
        if spec.trivial:
            return trivial(pairs, spec.method), None
        kept = self.store.maps(batch.part(spec), pairs.ids)
        if kept is None or not {side for side in self.plan.sides if side in spec.sides} <= set(kept[0]):
            made = explained(self.plan, spec, pairs, pictures)
            for one, (maps, cost) in made.items():
                self.store.keep_maps(batch.part(one), pairs.ids, maps, cost)
            kept = made[spec]
        return Judged(pairs, kept[0], spec.label), kept[1]

    def _rows(
        self,
        pairs: Pairs,
        judged: Judged | None,
        spec: Spec,
        metric: Metric,
        side: Side,
        variant: str,
        options: dict[str, Any],
    ) -> list[Row]:
        curves: list[tuple[float, ...] | None] = [None] * len(pairs)
        if judged is None:
            values = _oracle_values(pairs, metric, side, options)
        else:
            values = metric.function(judged, side, **options)
            if metric.name in ("insertion", "deletion"):
                curves = _curves(judged, metric.name == "insertion", side, options)
        return [
            self._row(i, pairs, spec, metric.name, side, variant, value, curves[i])
            for i, value in enumerate(values.tolist())
        ]

    def _row(
        self,
        i: int,
        pairs: Pairs,
        spec: Spec,
        metric: str,
        side: str,
        variant: str,
        value: float,
        line: tuple[float, ...] | None = None,
    ) -> Row:
        return Row(self.plan.dataset, pairs.ids[i], spec.label, metric, side, variant, float(value), line)


def _missing(wanted: Sequence[Wanted], rows: Sequence[Row]) -> list[Wanted]:
    there = {(row.metric, row.side, row.variant) for row in rows}
    return [one for one in wanted if (one[0].name, one[1], one[2]) not in there]


def _of(rows: Sequence[Row], ids: Sequence[str]) -> bool:
    """Whether rows are of exactly these pairs; no rows are of any."""
    return not rows or {row.pair for row in rows} == set(ids)


def _oracle_values(pairs: Pairs, metric: Metric, side: Side, options: dict[str, Any]) -> torch.Tensor:
    """Each curve has a greedy order of its own; with the least important first the oracle does the opposite."""
    how = {name: options[name] for name in ("score", "replacement") if name in options}
    if metric.name == "insertion-deletion":
        rising, falling = (oracle(pairs, side, insert=insert, **how) for insert in (True, False))
        return insertion(rising, side, **options) - deletion(falling, side, **options)
    least = metric.name.endswith("least-first") or options.get("first") == "least"
    insert = metric.name.startswith("insertion") != least
    return metric.function(oracle(pairs, side, insert=insert, **how), side, **options)


def _curves(judged: Judged, insert: bool, side: Side, options: dict[str, Any]) -> list[tuple[float, ...] | None]:
    x, y = curve(judged, side, insert=insert, **options)
    found: list[tuple[float, ...] | None] = []
    for shares, values in zip(x.numpy(), y.numpy(), strict=True):
        _, first = np.unique(shares, return_index=True)
        found.append(tuple(values[first].tolist()))
    return found
