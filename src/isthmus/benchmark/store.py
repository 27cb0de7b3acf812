"""Store: a run's folder, which loses nothing when the run is killed and repeats nothing when it goes on.

Every batch of pairs under every method is one part: its maps (NPZ) and its rows (Parquet); so are the captions chosen
for a batch of samples (JSON). Each is written beside its place and then renamed into it, so that it is there whole or
not at all. `rows.parquet` gathers the rows at the end.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.benchmark.rows import DAMAGED, Row, packed, read_all, rows_of, table_at, write_all
from isthmus.encoders.tower import Side
from isthmus.errors import OptionError, SaveError
from isthmus.metrics.maps import Map

_FILES = ("run.json", "sample.txt", "rows.parquet")
_OF_A_RUN = frozenset({"dataset", "sample"})  # settings that only a run's own run.json has
Maps = dict[Side, tuple[Map, ...]]


@dataclass(frozen=True)
class Cost:
    """What an explanation took, a pair."""

    seconds: float
    forward: float
    backward: float


@dataclass(frozen=True)
class Explained:
    """The maps of a batch of pairs.

    Attributes:
        maps: for each explained side a map for each pair that is not among the failed, in the order of the pairs.
        cost: what they took.
        failed: for a pair's id why it could not be explained.
    """

    maps: Maps
    cost: Cost
    failed: Mapping[str, str] = field(default_factory=dict)


class Store:
    """A run's folder.

    Args:
        folder: where it lies, or will.
    """

    def __init__(self, folder: Path) -> None:
        """See the class."""
        self.folder = folder
        self._rows, self._maps, self._texts = (folder / "parts" / kind for kind in ("rows", "maps", "texts"))

    def begin(self, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Make the folder, or go on in one of the same settings.

        Args:
            settings: see `isthmus.benchmark.plan.Plan.settings`. Those of metrics and methods join earlier ones.
            overwrite: begin anew.

        Raises:
            OptionError: it holds a run with other settings.
            SaveError: it cannot be written.
        """
        path = self.folder / "run.json"
        told = json.loads(json.dumps(settings, default=str))
        if path.is_file() and not overwrite:
            before = _read(path)
            self._check(before, told)
            told["metrics"] = _measured(before, told) | told["metrics"]
            told["methods"] = _methods(before) | told["methods"]
        try:
            for place in (self._rows, self._maps, self._texts):
                place.mkdir(parents=True, exist_ok=True)
            parts = list(self.folder.glob("parts/*/*"))
            unfinished = [path for name in _FILES for path in self.folder.glob(f".{name}.*")]
            for path in (*parts, *unfinished):
                if overwrite or path.name.startswith("."):  # the latter was being written when the run was killed
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise SaveError(
                f"The folder {str(self.folder)!r} cannot be made ({error.strerror}): choose another one."
            ) from error
        self.write("run.json", json.dumps(told, indent=1, ensure_ascii=False).encode())

    def _check(self, before: Mapping[str, Any], told: Mapping[str, Any]) -> None:
        if not set(before) >= _OF_A_RUN:
            raise OptionError(
                f"The folder {str(self.folder)!r} holds the run.json of something else: give another --out, or "
                "--overwrite."
            )
        alike = told.keys() & before.keys() - {"metrics", "methods"}
        differs = [name.replace("_", " ") for name in told if name in alike and before[name] != told[name]]
        measured = _measured(before, told)
        metrics = [name for name, options in told["metrics"].items() if measured.get(name, options) != options]
        methods = _methods(before)
        labels = [label for label, options in told["methods"].items() if methods.get(label, options) != options]
        if metrics or labels:
            differs.append(f"setting of {' and '.join((*metrics, *labels))}")
        if differs:
            names = ", ".join(differs)
            raise OptionError(
                f"The folder {str(self.folder)!r} holds a run with another {names}: give another --out, or --overwrite."
            )

    def write(self, name: str, content: bytes) -> Path:
        """Write a file whole, or not at all. Raises SaveError where the disk is full."""
        return _write(self.folder / name, content)

    def rows(self, part: str) -> list[Row]:
        """The rows of a part; none where it is not there, or was damaged."""
        table = table_at(self._place(part))
        return [] if table is None else rows_of(table)

    def keep_rows(self, part: str, rows: Sequence[Row]) -> None:
        """Put the rows of a part in its place."""
        _write(self._place(part), packed(rows))

    def _place(self, part: str) -> Path:
        return self._rows / f"{part}.parquet"

    def maps(self, part: str, ids: Sequence[str]) -> Explained | None:
        """What was explained of a part; None where it is not there, or is of other pairs."""
        try:
            with np.load(self._maps / f"{part}.npz", allow_pickle=False) as found:
                told = json.loads(str(found["told"]))
                if told["ids"] != list(ids):
                    return None
                failed = told.get("failed", {})
                count = len(ids) - len(failed)
                maps = {side: tuple(_unpacked(found, told, side, count)) for side in told["sides"]}
                return Explained(maps, Cost(**told["cost"]), failed)
        except DAMAGED:
            return None

    def keep_maps(self, part: str, ids: Sequence[str], explained: Explained) -> None:
        """Put what was explained of a part in its place."""
        arrays: dict[str, Any] = {}
        told: dict[str, Any] = {"ids": list(ids), "failed": dict(explained.failed), "sides": list(explained.maps)}
        told["cost"] = vars(explained.cost)
        for side, own in explained.maps.items():
            told[side] = [_facts(one) for one in own]
            arrays |= {f"{side}{i}": one.scores for i, one in enumerate(own)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, told=np.array(json.dumps(told)), **arrays)
        _write(self._maps / f"{part}.npz", buffer.getvalue())

    def texts(self, number: int, ids: Sequence[str]) -> list[tuple[str, ...]] | None:
        """The captions chosen for a batch of samples; None where they are not there, or are of other samples."""
        try:
            told = json.loads((self._texts / f"{number:05d}.json").read_bytes())
            return [tuple(map(str, told["texts"][name])) for name in ids] if told["ids"] == list(ids) else None
        except DAMAGED:
            return None

    def keep_texts(self, number: int, ids: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
        """Put the captions chosen for a batch of samples in their place."""
        told = {"ids": list(ids), "texts": {name: list(own) for name, own in zip(ids, texts, strict=True)}}
        _write(self._texts / f"{number:05d}.json", json.dumps(told).encode())

    def gather(self, parts: Iterable[str], labels: Collection[str]) -> Any:
        """Write all rows of the parts to `rows.parquet`.

        Args:
            parts: those of this run.
            labels: what this run compares; an earlier run's parts in the folder follow, where they are of other labels.

        Returns:
            A `pyarrow.Table`, see `isthmus.benchmark.rows.read_all`.
        """
        place = self.folder / "rows.parquet"
        with _placed(place) as beside, beside.open("wb") as stream:
            write_all(self._tables(list(parts), labels), stream)
        return read_all(place)

    def _tables(self, parts: Sequence[str], labels: Collection[str]) -> Iterator[Any]:
        for part in parts:
            if (table := table_at(self._place(part))) is not None:
                yield table
        own = set(parts)
        for path in sorted(self._rows.glob("[!.]*.parquet")):
            table = None if path.stem in own else table_at(path)
            if table is not None and table.num_rows and table.column("method")[0].as_py() not in labels:
                yield table


def _facts(one: Map) -> dict[str, Any]:
    return {
        "special": {str(position): score for position, score in one.special.items()},
        "open": one.open,
        "closed": one.closed,
        "total": one.total,
        "fixed": one.fixed,
        "flat": one.flat,
    }


def _unpacked(found: Any, told: Mapping[str, Any], side: Side, count: int) -> Iterable[Map]:
    for i in range(count):
        facts = dict(told[side][i])
        special = {int(position): score for position, score in facts.pop("special").items()}
        yield Map(found[f"{side}{i}"], special, **facts)


def _measured(before: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The options of each metric that earlier runs measured, by what they told in `run.json`."""
    found, given = before.get("metrics"), before.get("metric_options")
    if isinstance(found, dict):
        return found
    # Older runs told of metrics with options alone; any other may have been measured too, without options.
    return {**{name: {} for name in told["metrics"]}, **(given if isinstance(given, dict) else {})}


def _methods(before: Mapping[str, Any]) -> dict[str, Any]:
    """The options of each label of earlier runs; older ones told of none."""
    found = before.get("methods")
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: bytes) -> Path:
    with _placed(path) as beside:
        beside.write_bytes(content)
    return path


@contextmanager
def _placed(path: Path) -> Iterator[Path]:
    """Where to write a file that is then renamed into its place. Raises SaveError where the disk is full."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        raise SaveError(
            f"{str(path)!r} cannot be written ({error.strerror}): free some space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
