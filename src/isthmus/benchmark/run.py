"""run(): evaluate a plan batch by batch, in a folder that can be gone on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.benchmark.choosing import chosen_texts
from isthmus.benchmark.explaining import explained_again, explained_at_all
from isthmus.benchmark.measuring import Curve, measured
from isthmus.benchmark.plan import Plan, Wanted
from isthmus.benchmark.questions import Item, items_of, opened, some_of
from isthmus.benchmark.rows import Row
from isthmus.benchmark.spec import ORACLE, Spec
from isthmus.benchmark.store import Cost, Explained, Store
from isthmus.benchmark.summary import COSTS
from isthmus.datasets.records import Failure
from isthmus.errors import InputError, IsthmusError, ModelError, OptionError, SaveError
from isthmus.extras import needed
from isthmus.metrics.pairs import Judged, Pairs
from isthmus.metrics.registry import Question
from isthmus.metrics.trivial import trivial

Progress = Callable[[int, int, str], None]


@dataclass
class Outcome:
    """What a run gives.

    Attributes:
        rows: a `pyarrow.Table`: dataset, pair, sample, method, metric, side, variant, value, curve.
        failed: pairs and samples that could not be used.
        refused: for a spec's label the sentence of a method that cannot explain this model, or any pair.
        skipped: for a metric's name why the dataset gives it nothing to measure; for the name of a metric, a side and a
            variant why the model cannot serve it.
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
    tried: set[str] = field(default_factory=set)  # parts that were explained in this run

    def batches(self) -> list[_Batch]:
        plan, found = self.plan, []
        for metric in plan.metrics:
            if not set(metric.sides) & set(plan.sides):
                self.outcome.skipped[metric.name] = f"This judges the {' and '.join(metric.sides)} alone"
        texts = self._texts() if set(plan.questions) - {"region"} else None
        for question in plan.questions:
            items = items_of(plan.samples, question, plan.model, seed=plan.seed, texts=texts)
            if not items:
                self.outcome.skipped |= {one.name: self._lacking(question) for one in plan.metrics_of(question)}
            size = plan.batch_size
            for number, start in enumerate(range(0, len(items), size)):
                found.append(_Batch(question, start, number, items[start : start + size]))
        if not found:
            raise InputError(f"{next(iter(self.outcome.skipped.values()))}: choose another sample or other metrics.")
        for spec in plan.specs:
            if not spec.trivial and not any(plan.wanted(spec, batch.question) for batch in found):
                sides = " and ".join(spec.sides)
                self.outcome.refused[spec.label] = (
                    f"{spec.method} explains the {sides} alone, which no metric asks for."
                )
        return found

    def _texts(self) -> list[tuple[str, ...]]:
        """The captions that are judged, chosen once for all questions and runs."""
        return chosen_texts(
            self.plan.model,
            self.plan.samples,
            choice=self.plan.choice,
            batch_size=self.plan.batch_size,
            failed=self.outcome.failed.append,
            store=self.store,
        )

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
        wanted, ids = self.plan.wanted(spec, batch.question), self._due(batch, spec)
        if not wanted or not ids or spec.label in self.outcome.refused:
            return
        rows = self._kept(batch, spec)
        if rows:
            self.served.add(spec.label)
        if _missing(wanted, rows, ids):
            pairs, pictures = self._opened(batch)
            due = [] if pairs is None else [name for name in pairs.ids if name in ids]
            if pairs is None or not _missing(wanted, rows, due):
                return
            if len(due) < len(pairs):
                pairs, pictures = some_of(pairs, pictures, [pairs.ids.index(name) for name in due])
            self._measured(batch, spec, pairs, pictures, rows, wanted)

    def _kept(self, batch: _Batch, spec: Spec) -> list[Row]:
        """The rows of a part; those of pairs that stood in this batch before a picture came back are in another one."""
        ids, there = {item.id for item in batch.items}, self.store.rows(batch.part(spec))
        rows = [row for row in there if row.pair in ids]
        if len(rows) < len(there):
            self.store.keep_rows(batch.part(spec), rows)
        return rows

    def _due(self, batch: _Batch, spec: Spec) -> list[str]:
        """The pairs of a batch that are measured under a spec: all but for the oracle."""
        ids = [item.id for item in batch.items]
        return ids[: max(0, self.plan.oracle_pairs - batch.start)] if spec.method == ORACLE else ids

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
        wanted: Sequence[Wanted],
    ) -> None:
        """Add what is missing to the rows of a part and keep them."""
        try:
            found = self._judged(batch, spec, pairs, pictures)
        except SaveError:
            raise
        except IsthmusError as error:
            self.lost.setdefault(spec.label, []).append((pairs.ids, str(error)))
            if isinstance(error, OptionError) and spec.label not in self.served:
                self.outcome.refused[spec.label] = str(error)
            return
        if found is None:
            return
        self.served.add(spec.label)
        pairs, judged, cost = found
        missing = _missing(wanted, rows, pairs.ids)
        new: list[Row] = []
        for metric, side, variant, options in missing:
            try:
                values, curves = measured(pairs, judged, metric, side, options)
            except ModelError as error:
                name = f"{metric.name} ({side}, {variant})"
                self.outcome.skipped[name] = str(error).rstrip(".")
                continue
            new += self._rows(batch, pairs, spec, (metric.name, side, variant), values, curves)
        if missing and cost is not None and batch.question == "caption":
            for name in COSTS:
                new += self._rows(batch, pairs, spec, (name, "", ""), [vars(cost)[name]] * len(pairs))
        if missing:
            if spec.preset == "paper" and {row.pair for row in rows} != set(pairs.ids):
                rows = []  # such maps depend on the other pairs of the batch, so these are of other maps
            order = [item.id for item in batch.items]
            self.store.keep_rows(batch.part(spec), _joined(rows, new, order))

    def _judged(
        self, batch: _Batch, spec: Spec, pairs: Pairs, pictures: Sequence[Any]
    ) -> tuple[Pairs, Judged | None, Cost | None] | None:
        """The pairs that a spec explains, and its maps; no maps for the oracle, which has one a metric."""
        if spec.method == ORACLE:
            return pairs, None, None
        if spec.trivial:
            return pairs, trivial(pairs, spec.method), None
        found = self._explained(batch, spec, pairs, pictures)
        for name, why in found.failed.items():
            self.lost.setdefault(spec.label, []).append(((name,), why))
        if not found.maps:
            return None
        if found.failed:
            good = [i for i, name in enumerate(pairs.ids) if name not in found.failed]
            pairs, _ = some_of(pairs, pictures, good)
        return pairs, Judged(pairs, found.maps, spec.label), found.cost

    def _explained(self, batch: _Batch, spec: Spec, pairs: Pairs, pictures: Sequence[Any]) -> Explained:
        """From the store, or made and stored; pairs that failed in an earlier run are tried again."""
        part, sides = batch.part(spec), {side for side in self.plan.sides if side in spec.sides}
        kept = self.store.maps(part, pairs.ids)
        if kept is None or not sides <= set(kept.maps):
            made = explained_at_all(self.plan, spec, pairs, pictures, served=spec.label in self.served)
        elif not kept.failed or part in self.tried:
            return kept
        else:
            made = {spec: explained_again(self.plan, spec, pairs, pictures, kept)}
        for one, own in made.items():
            self.tried.add(batch.part(one))
            if own.maps and (kept is None or own.maps is not kept.maps):
                self.store.keep_maps(batch.part(one), pairs.ids, own)
        return made[spec]

    def _rows(
        self,
        batch: _Batch,
        pairs: Pairs,
        spec: Spec,
        of: tuple[str, str, str],
        values: Sequence[float],
        curves: Sequence[Curve] | None = None,
    ) -> list[Row]:
        """Rows of a metric, a side and a variant."""
        samples = {item.id: item.sample.picture for item in batch.items}
        return [
            Row(self.plan.dataset, name, samples[name], spec.label, *of, float(value), line)
            for name, value, line in zip(pairs.ids, values, curves or [None] * len(pairs), strict=True)
        ]


def _missing(wanted: Sequence[Wanted], rows: Sequence[Row], ids: Sequence[str]) -> list[Wanted]:
    """What at least one of the pairs has no row of."""
    there = {(row.metric, row.side, row.variant, row.pair) for row in rows}
    return [one for one in wanted if any((one[0].name, one[1], one[2], name) not in there for name in ids)]


def _joined(rows: Sequence[Row], new: Sequence[Row], order: Sequence[str]) -> list[Row]:
    """Rows and new ones, which stand in place of older ones; those of one variant together, as the pairs come."""
    found: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in (*rows, *new):
        found.setdefault((row.metric, row.side, row.variant), {})[row.pair] = row
    place = {name: i for i, name in enumerate(order)}
    return [row for own in found.values() for row in sorted(own.values(), key=lambda row: place[row.pair])]
