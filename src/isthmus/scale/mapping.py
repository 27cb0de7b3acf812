"""isthmus.map: explain any number of pairs into a folder of Parquet files, on one machine or a Ray cluster."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isthmus.encoders.dual import DualEncoder
from isthmus.errors import IsthmusError, OptionError
from isthmus.extras import needed
from isthmus.scale.job import Job
from isthmus.scale.local import run_local
from isthmus.scale.pieces import PAIRS
from isthmus.scale.progress import Listener, Progress, counted
from isthmus.scale.settings import digest, listed, name, versions, weights
from isthmus.scale.source import Plan, plan
from isthmus.scale.store import Store

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class MapResult:
    """What a run gave.

    Attributes:
        folder: the output, a path or URL: `pairs/*.parquet`, `errors.parquet`, `manifest.json`.
        rows: how many there are, those of earlier runs among them.
        failures: lines of `errors.parquet`.
        progress: how far this run came, and how long it took.
    """

    folder: str
    rows: int
    failures: int
    progress: Progress


def map(
    source: str | Path,
    output: str | Path,
    *,
    model: str | Path | DualEncoder = "mini",
    method: str | Sequence[str] = "nib",
    prompts: Sequence[str] = (),
    image_column: str | None = None,
    text_columns: Sequence[str] = (),
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
    shards: str | None = None,
    engine: Engine = "local",
    address: str | None = None,
    cores: int | None = None,
    stored: str = "float32",
    sides: Sequence[str] | str | None = None,
    preset: str | None = None,
    truncate: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = 16,
    piece_size: int = PAIRS,
    workers: int | None = None,
    max_failures: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Listener | None = None,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> MapResult:
    """Explain any number of pairs into OUTPUT, and go on where an earlier run was interrupted.

    Args:
        source: a folder of pictures with texts, a `.csv`, `.tsv` or `.jsonl` table, Parquet files, `.tar` shards in the
            layout of WebDataset, or `hf:NAME`; a path, glob or brace pattern, or a URL that fsspec knows.
        output: a folder, or a URL that fsspec knows; a run with the same settings goes on, others are refused.
        model: what `isthmus.load` takes by name; a loaded model with the local engine alone.
        method: a name of `isthmus.methods`, or several, each of which gives a row for each pair.
        prompts: texts for every picture, in place of its own.
        image_column, text_columns, split, config: as of `isthmus.datasets.open_dataset`.
        limit: only so many records from the beginning.
        shards: "N/M", the Nth of M parts of the input's shards.
        engine: "local" for this machine; "ray" for a cluster, with the extra `ray`.
        address: of the Ray cluster; None for the one that runs here, or a new one.
        cores: of each worker of the Ray cluster that has no GPU; docs/scale-cluster.md.
        stored: how maps are kept: "float32", "float16", "int8", or "vectors" in their place; docs/scale.md.
        sides, preset, truncate: as of `isthmus.explain`.
        device, dtype: as of `isthmus.load`.
        batch_size: pairs at once.
        piece_size: pairs in a file of the output at most; what is lost when a run is killed.
        workers: processes that open pictures for each model, by default as many as the device needs.
        max_failures: stop where more than so many pairs fail.
        retry_failed: do the pieces again in which something failed in an earlier run.
        overwrite: throw away what an earlier run wrote.
        storage_options: of the output's file system.
        progress: told how far the run is.
        notice: told what a user should know of the input or the model.
        options: the method's own, as of `isthmus.explain`.

    Returns:
        A `MapResult`; the rows are in its folder, to be read with pandas, polars, DuckDB, `datasets` or pyarrow.

    Raises:
        InputError: there is no such input.
        OptionError: an option makes no sense, or the output holds a run of other settings.
        ModelError: there is no such model, or it explains nothing at all.
        SaveError: the output cannot be written. What was finished is kept.
        IsthmusError: more failed than `max_failures`.
    """
    needed("pyarrow")
    job = Job(
        model=name(model),
        methods=(method,) if isinstance(method, str) else tuple(method),
        options={name: value for name, value in options.items() if value is not None},
        sides=_sides(sides),
        preset=preset,
        truncate=truncate,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        stored=stored,
        decoders=workers,
    )
    job.check()
    _check(engine, model, piece_size, max_failures, cores)
    if engine != "ray" and (address is not None or cores is not None):
        raise OptionError("address and cores are of a Ray cluster: add engine='ray' (--engine ray), or leave them out.")
    planned = plan(
        source,
        image_column=image_column,
        text_columns=text_columns,
        prompts=prompts,
        split=split,
        config=config,
        limit=limit,
        shards=shards,
    )
    if notice is not None and planned.notice:
        notice(planned.notice)
    settings: dict[str, Any] = {
        "input": planned.fingerprint,
        "image_column": image_column,
        "text_columns": listed(text_columns),
        "prompts": digest(prompts),
        "split": split,
        "config": config,
        "limit": limit,
        "shards": shards,
        "piece_size": piece_size,
        **job.settings(),
        "weights": weights(model),
    }
    store, asked = (
        Store(str(output), storage_options=storage_options),
        {"input": str(source), "prompts": listed(prompts)},
    )
    run = _Run(planned, job, store, piece_size, max_failures, progress, asked, overwrite, retry_failed)
    manifest = None if overwrite else store.finished(settings)
    if manifest is not None and not (retry_failed and manifest["counts"]["failures"]):
        return run.result(manifest, Progress(records=planned.records or 0, total=planned.records))
    if engine == "ray":
        return run.with_ray(settings, address, cores)
    return run.here(settings, model, notice)


@dataclass(frozen=True)
class _Run:
    """A run whose options are checked and whose input is planned."""

    plan: Plan
    job: Job
    store: Store
    piece_size: int
    max_failures: int | None
    progress: Listener | None
    asked: Mapping[str, Any]  # as it was given, for who reads the manifest
    overwrite: bool
    retry_failed: bool

    def here(
        self,
        settings: Mapping[str, Any],
        model: str | Path | DualEncoder,
        notice: Callable[[str], None] | None,
    ) -> MapResult:
        loaded = model if isinstance(model, DualEncoder) else self.job.load()
        if notice is not None and loaded.notice:
            notice(loaded.notice)
        self._prepare(settings, "local")
        return self._watched(
            lambda: run_local(
                self.plan,
                self.job,
                self.store,
                piece_size=self.piece_size,
                model=loaded,
                max_failures=self.max_failures,
                listen=self.progress,
            )
        )

    def with_ray(self, settings: Mapping[str, Any], address: str | None, cores: int | None) -> MapResult:
        needed("ray")
        from isthmus.scale.cluster import CORES, connected
        from isthmus.scale.ray import parts

        with self._put_down(), connected(address):  # before anything is written
            self._prepare(settings, "ray")
            found = parts(self.plan, self.job, self.store, size=self.piece_size, cores=cores or CORES)
            complete = self.store.done().complete()
            before = sum(shard.records or 0 for shard in self.plan.shards if shard.number in complete)

            def run() -> Progress:
                with closing(found):
                    return counted(
                        found,
                        self.plan.records,
                        before=before,
                        max_failures=self.max_failures,
                        errors=self.store.errors,
                        listen=self.progress,
                    )

            return self._watched(run)

    @contextmanager
    def _put_down(self) -> Iterator[None]:
        """Where a user ends the run, so are its workers wherever they are, and no piece was their end."""
        try:
            yield
        except KeyboardInterrupt:
            with suppress(IsthmusError):
                self.store.put_down()
            raise

    def _prepare(self, settings: Mapping[str, Any], engine: Engine) -> None:
        about = {
            **self.asked,
            "methods": list(self.job.methods),
            "engine": engine,
            "shards": len(self.plan.shards),
            "records": self.plan.records,
            "batch_size": self.job.batch_size,
            "machine": platform.node(),
            "versions": versions(),
        }
        self.store.prepare(settings, about=about, overwrite=self.overwrite, retry_failed=self.retry_failed)

    def _watched(self, run: Callable[[], Progress]) -> MapResult:
        """Run, and whatever happens gather the errors and write the manifest."""
        try:
            progress = run()
        except BaseException as error:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped"
            with suppress(IsthmusError):  # the first error says more
                self.store.finish(state)
            raise
        return self.result(self.store.finish("complete"), progress)

    def result(self, manifest: Mapping[str, Any], progress: Progress) -> MapResult:
        """What a manifest tells of a run that is done."""
        counts = manifest["counts"]
        return MapResult(self.store.url, int(counts["rows"]), int(counts["failures"]), progress)


def _check(engine: str, model: Any, piece_size: int, max_failures: int | None, cores: int | None) -> None:
    if engine not in ("local", "ray"):
        raise OptionError(f'engine must be "local" or "ray", not {engine!r}.')
    if cores is not None and cores < 1:
        raise OptionError(f"cores must be at least 1, not {cores}.")
    if engine == "ray" and isinstance(model, DualEncoder):
        raise OptionError("The Ray engine loads the model in each of its actors: give its name or folder.")
    if isinstance(piece_size, bool) or not isinstance(piece_size, int) or piece_size < 1:
        raise OptionError(f"piece_size must be a whole number of at least 1, not {piece_size!r}.")
    if max_failures is not None and max_failures < 0:
        raise OptionError(f"max_failures must be at least 0, not {max_failures}.")


def _sides(sides: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if sides is None or sides == "both" or tuple(sides) == ("both",):
        return None
    found = (sides,) if isinstance(sides, str) else tuple(sides)
    if not found or any(side not in ("image", "text") for side in found):
        raise OptionError(f'sides must be "image", "text", or both, not {sides!r}.')
    return found
