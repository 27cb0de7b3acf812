"""One pass over the rows of a run, in memory that does not grow with them: what a corpus looks like to a model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.errors import InputError, OptionError
from isthmus.frozen import Array
from isthmus.scale.positions import Positions
from isthmus.scale.store import Store
from isthmus.scale.stored import Maps, form_of, lists
from isthmus.scale.tallies import Histogram, Kept, WordTally

_ROWS = 1024  # at once
_GRIDS = 64  # of a model that takes pictures of any shape; what has another one is only counted
_COLUMNS = (
    "id", "picture", "method", "similarity", "image_rows", "image_columns", "image_delta", "text_delta", "words",
    "word_scores",
)  # fmt: skip
_MAPS = ("image_scores", "image_scale", "vectors", "vectors_open", "text_embedding")
OUTLIERS = {
    "lowest_similarity": "lowest similarity",
    "highest_similarity": "highest similarity",
    "largest_image_delta": "largest delta of the picture",
    "largest_text_delta": "largest delta of the text",
    "most_corner_mass": "most in one corner",
}


class MethodTally:
    """The statistics of one method's rows.

    Args:
        outliers: rows of each kind that are kept.
        words: see `WordTally`.
    """

    def __init__(self, outliers: int, words: int) -> None:
        """See the class."""
        self.rows = self.other_grids = 0
        self.similarity = Histogram(-1, 1, 2000)
        self.deltas = {side: Histogram(1e-6, 1e4, 1000, log=True) for side in ("image", "text")}
        self.words = WordTally(words)
        self.grids: dict[tuple[int, int], Positions] = {}
        self.outliers = {name: Kept(outliers) for name in OUTLIERS}

    def add(self, batch: Any, maps: Sequence[Array | None], row: Callable[[int], Mapping[str, Any]]) -> None:
        """Take in rows.

        Args:
            batch: a `pyarrow` batch or table of them.
            maps: theirs, None where a row has none.
            row: gives a whole row by its place in the batch.
        """
        self.rows += batch.num_rows
        similarity = _numbers(batch, "similarity")
        deltas = {side: _numbers(batch, f"{side}_delta") for side in self.deltas}
        self.similarity.add(similarity)
        for side, values in deltas.items():
            self.deltas[side].add(values)
        self._add_words(batch)
        ids, pictures = batch.column("id").to_pylist(), batch.column("picture").to_pylist()
        corner = self._add_maps(maps, pictures)
        figures = (-similarity, similarity, deltas["image"], deltas["text"], corner)
        for kept, values in zip(self.outliers.values(), figures, strict=True):
            kept.offer(values, ids, pictures, row)

    def _add_words(self, batch: Any) -> None:
        words, scores = lists(batch.column("words")), lists(batch.column("word_scores"))
        there = [
            (own, value) for own, value in zip(words, scores, strict=True) if own is not None and value is not None
        ]
        if not there:
            return
        whole = [float(np.abs(value).sum()) for _, value in there]
        shares = [
            value / one if one > 0 else np.zeros_like(value) for (_, value), one in zip(there, whole, strict=True)
        ]
        self.words.add(
            [word for own, _ in there for word in own.tolist()],
            np.concatenate([value for _, value in there]),
            np.concatenate(shares),
        )

    def _add_maps(self, maps: Sequence[Array | None], pictures: Sequence[str]) -> Array:
        corner = np.full(len(maps), np.nan)
        by_shape: dict[tuple[int, int], tuple[list[int], list[Array]]] = {}
        for i, one in enumerate(maps):
            if one is not None and np.isfinite(one).all():
                places, own = by_shape.setdefault((one.shape[0], one.shape[1]), ([], []))
                places.append(i)
                own.append(one)
        for shape, (places, own) in by_shape.items():
            if shape not in self.grids and len(self.grids) == _GRIDS:
                self.other_grids += len(places)
                continue
            grid = self.grids.setdefault(shape, Positions(shape))
            corner[places] = grid.add(np.stack(own), [pictures[i] for i in places])
        return corner

    def told(self, least: int, count: int) -> dict[str, Any]:
        """What there is to tell, as JSON; outliers by their ids."""
        grids = sorted(self.grids.values(), key=lambda one: (-one.count, one.shape))
        return {
            "rows": self.rows,
            "similarity": self.similarity.told(),
            "image_delta": self.deltas["image"].told(),
            "text_delta": self.deltas["text"].told(),
            "words": self.words.told(least, count),
            "grids": [one.told() for one in grids],
            "other_grids": self.other_grids,
            "outliers": {
                name: [
                    {
                        "id": id,
                        "text": row["text"],
                        "figure": -figure if name.startswith("lowest") else figure,
                        "where": row["where"],
                    }
                    for figure, id, row in kept.rows
                ]
                for name, kept in self.outliers.items()
            },
        }


@dataclass(frozen=True)
class Summary:
    """The statistics of a run.

    Attributes:
        told: them all, as in `summary.json`.
        rows: for each method and kind of outlier (`OUTLIERS`) the rows themselves, each with its map
            `(rows, columns)`, or None.
    """

    told: dict[str, Any]
    rows: dict[str, dict[str, list[tuple[Mapping[str, Any], Array | None]]]] = field(repr=False)

    def json(self) -> str:
        """The content of `summary.json`; numbers that JSON lacks are null."""
        return json.dumps(_finite(self.told), indent=1, ensure_ascii=False, allow_nan=False)


def summarise(
    output: str | Path,
    *,
    least: int = 5,
    words: int = 15,
    outliers: int = 6,
    vocabulary: int = 200_000,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Summarise the output of `isthmus map`, also of a run that is not at its end.

    Args:
        output: its folder or URL.
        least: how often a word must come to be told of.
        words: in each list of them.
        outliers: of each kind.
        vocabulary: words in memory; see `isthmus.scale.tallies.WordTally`.
        storage_options: for the file system.
        progress: called with the number of rows done and their total.

    Raises:
        InputError: there is no such output, or it has no rows.
        OptionError: a number below what makes sense.
        SaveError: a part is damaged, or of a newer Isthmus.
    """
    for name, value, low in (("least", least, 1), ("words", words, 1), ("outliers", outliers, 0)):
        if value < low:
            raise OptionError(f"{name} must be at least {low}, not {value}.")
    if vocabulary < 2:
        raise OptionError(f"vocabulary must be at least 2, not {vocabulary}.")
    store = Store(str(output), storage_options=storage_options)
    manifest = store.manifest()
    if manifest is None:
        raise InputError(f"There is no output of isthmus map in {str(output)!r}: give the folder that it wrote.")
    tallies: dict[str, MethodTally] = {}
    done, parts = 0, list(store.parts())
    for number, name in enumerate(parts):
        with store.read_part(name) as part:
            for method, batch, maps, row in _batches(store, name, part):
                tally = tallies.setdefault(method, MethodTally(outliers, vocabulary))
                tally.add(batch, maps, row)
                done += batch.num_rows
        if progress is not None:
            progress(number + 1, len(parts))
    failures = _failures(store)
    if not done:
        raise InputError(_empty(str(output), manifest.get("state"), failures["count"]))
    told = {
        "output": str(output),
        "run": {name: manifest.get(name) for name in ("state", "settings", "about", "counts", "began", "ended")},
        "pairs": max(tally.rows for tally in tallies.values()),  # ids of a hundred million do not fit in memory
        "rows": done,
        "failures": failures,
        "methods": {name: tally.told(least, words) for name, tally in tallies.items()},
    }
    return Summary(told, {name: _kept(tally) for name, tally in tallies.items()})


def _batches(store: Store, name: str, part: Any) -> Any:
    """Batches of a part's rows of one method each, with their maps, and what gives a whole row."""
    names = part.schema_arrow.names
    maps = Maps(form_of(part.schema_arrow))
    for batch in store.batches(part, name, _ROWS):
        found = maps.of(batch)
        methods = np.array(batch.column("method").to_pylist(), dtype=object)
        for method in dict.fromkeys(methods.tolist()):
            places = np.flatnonzero(methods == method)
            own = batch.select([name for name in _COLUMNS if name in names]).take(_indices(places))

            def row(i: int, batch: Any = batch, places: Array = places, found: Any = found) -> Mapping[str, Any]:
                at = int(places[i])
                keep = [name for name in names if name not in _MAPS]
                return {**batch.select(keep).slice(at, 1).to_pylist()[0], "map": found[at]}

            yield method, own, [found[i] for i in places], row


def _indices(places: Array) -> Any:
    from isthmus.extras import needed

    return needed("pyarrow").array(places)


def _numbers(batch: Any, name: str) -> Array:
    """A column of numbers as float64, NaN where it is null."""
    return np.asarray(batch.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)


def _kept(tally: MethodTally) -> dict[str, list[tuple[Mapping[str, Any], Array | None]]]:
    return {name: [(row, row["map"]) for _, _, row in kept.rows] for name, kept in tally.outliers.items()}


def _empty(output: str, state: Any, errors: int | None) -> str:
    """What to say of a run without rows, and of how many records it could not explain."""
    many = f"{errors:,} error{'' if errors == 1 else 's'}" if errors else "no errors"
    if state == "running":
        known = f", and {many}" if errors else ""
        return f"The run in {output!r} has no rows yet{known}: wait for it, or go on with isthmus map if it was killed."
    if errors:
        return f"The run in {output!r} has no rows, and {many}: its errors.parquet says why."
    mend = "look whether its input holds pairs" if state == "complete" else "go on with the same isthmus map"
    return f"The run in {output!r} has no rows, and {many}: {mend}."


def _failures(store: Store) -> dict[str, Any]:
    """How many records failed, and the reasons of a few."""
    if not store.files.exists("errors.parquet"):
        return {"count": None, "some": []}  # the run goes on, or was killed
    with store.read_part("errors.parquet") as part:
        some: list[dict[str, Any]] = []
        for batch in store.batches(part, "errors.parquet", 10):
            some = batch.to_pylist()
            break
        return {"count": part.metadata.num_rows, "some": some}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
