"""Store: a run's folder, which loses nothing when the run is killed and repeats nothing when it goes on.

Every batch of pairs under every method is one part: its maps (NPZ) and its rows (Parquet), each written beside its
place and then renamed into it, so that a part is there whole or not at all. `rows.parquet` gathers them at the end.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.encoders.tower import Side
from isthmus.errors import OptionError, SaveError
from isthmus.extras import needed
from isthmus.metrics.maps import Map

_TEXTS = ("dataset", "pair", "method", "metric", "side", "variant")
_FILES = ("run.json", "sample.txt", "rows.parquet")
_OF_A_RUN = frozenset({"dataset", "sample"})  # settings that only a run's own run.json has
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
Maps = dict[Side, tuple[Map, ...]]


@dataclass(frozen=True)
class Cost:
    """What an explanation took, a pair."""

    seconds: float
    forward: float
    backward: float


@dataclass(frozen=True)
class Row:
    """One number: of a pair, a method, and a variant of a metric on a side."""

    dataset: str
    pair: str
    method: str
    metric: str
    side: str
    variant: str
    value: float
    curve: tuple[float, ...] | None = None


class Store:
    """A run's folder.

    Args:
        folder: where it lies, or will.
    """

    def __init__(self, folder: Path) -> None:
        """See the class."""
        self.folder = folder
        self._rows, self._maps = folder / "parts" / "rows", folder / "parts" / "maps"

    def begin(self, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Make the folder, or go on in one of the same settings.

        Raises:
            OptionError: it holds a run with other settings.
            SaveError: it cannot be written.
        """
        path = self.folder / "run.json"
        told = json.loads(json.dumps(settings, default=str))
        if path.is_file() and not overwrite:
            self._check(_read(path), told)
        try:
            for place in (self._rows, self._maps):
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
        differs = [name for name, value in told.items() if name in before and before[name] != value]
        if differs:
            names = ", ".join(name.replace("_", " ") for name in differs)
            raise OptionError(
                f"The folder {str(self.folder)!r} holds a run with another {names}: give another --out, or --overwrite."
            )

    def write(self, name: str, content: bytes) -> Path:
        """Write a file whole, or not at all. Raises SaveError where the disk is full."""
        return _write(self.folder / name, content)

    def rows(self, part: str) -> list[Row]:
        """The rows of a part; none where it is not there, or was damaged."""
        try:
            table = self._table(part)
            return [] if table is None else [_row(one) for one in table.to_pylist()]
        except _DAMAGED:
            return []

    def keep_rows(self, part: str, rows: Sequence[Row]) -> None:
        """Put the rows of a part in its place."""
        table = needed("pyarrow").Table.from_pylist([vars(row) for row in rows], schema=_schema())
        _write(self._rows / f"{part}.parquet", _parquet(table))

    def maps(self, part: str, ids: Sequence[str]) -> tuple[Maps, Cost] | None:
        """The maps of a part, and what they took; None where they are not there, or are of other pairs."""
        try:
            with np.load(self._maps / f"{part}.npz", allow_pickle=False) as found:
                told = json.loads(str(found["told"]))
                if told["ids"] != list(ids):
                    return None
                maps = {side: tuple(_unpacked(found, told, side, len(ids))) for side in told["sides"]}
                return maps, Cost(**told["cost"])
        except _DAMAGED:
            return None

    def keep_maps(self, part: str, ids: Sequence[str], maps: Maps, cost: Cost) -> None:
        """Put the maps of a part in its place."""
        arrays: dict[str, Any] = {}
        told: dict[str, Any] = {"ids": list(ids), "sides": list(maps), "cost": vars(cost)}
        for side, own in maps.items():
            told[side] = [_facts(one) for one in own]
            arrays |= {f"{side}{i}": one.scores for i, one in enumerate(own)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, told=np.array(json.dumps(told)), **arrays)
        _write(self._maps / f"{part}.npz", buffer.getvalue())

    def gather(self, parts: Iterable[str], labels: Collection[str]) -> Any:
        """All rows of the parts, as a `pyarrow.Table`, which is also written to `rows.parquet`.

        Args:
            parts: those of this run.
            labels: what this run compares; an earlier run's parts in the folder follow, where they are of other labels.
        """
        parts = list(parts)
        tables = [table for part in parts if (table := self._table(part)) is not None]
        for path in sorted(self._rows.glob("[!.]*.parquet")):
            table = None if path.stem in set(parts) else self._table(path.stem)
            if table is not None and table.num_rows and table.column("method")[0].as_py() not in labels:
                tables.append(table)
        found = needed("pyarrow").concat_tables([_schema().empty_table(), *tables])
        self.write("rows.parquet", _parquet(found))
        return found

    def _table(self, part: str) -> Any:
        """The rows of a part as a `pyarrow.Table`; None where it is not there, or was damaged."""
        parquet, arrow = needed("pyarrow.parquet"), needed("pyarrow")
        try:
            content = (self._rows / f"{part}.parquet").read_bytes()  # given a path, a folder `a=1` on it adds a column
            return parquet.read_table(arrow.BufferReader(content)).cast(_schema())
        except _DAMAGED:
            return None


def _schema() -> Any:
    arrow = needed("pyarrow")
    fields = [(name, arrow.string()) for name in _TEXTS]
    return arrow.schema([*fields, ("value", arrow.float64()), ("curve", arrow.list_(arrow.float32()))])


def _parquet(table: Any) -> bytes:
    sink = needed("pyarrow").BufferOutputStream()
    needed("pyarrow.parquet").write_table(table, sink)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _row(found: dict[str, Any]) -> Row:
    curve = found.pop("curve")
    return Row(**found, curve=None if curve is None else tuple(curve))


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


def _write(path: Path, content: bytes) -> Path:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise SaveError(
            f"{str(path)!r} cannot be written ({error.strerror}): free some space or choose another folder."
        ) from error
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
