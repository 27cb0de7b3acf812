"""A fixed sample of a dataset, named by a seed or by a list of ids."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path

from isthmus.datasets.opening import Dataset
from isthmus.datasets.records import Failure
from isthmus.datasets.sample import Sample
from isthmus.errors import InputError, OptionError, SaveError

_HOPELESS = 1000


def sampled(
    dataset: Dataset, *, limit: int | None = None, seed: int = 0, ids: Collection[str] | None = None
) -> tuple[list[Sample], list[Failure]]:
    """A sample that depends on the seed and the ids alone, not on the order of files.

    The `limit` samples whose SHA-256 of `SEED/ID` is smallest are kept, in that order, so that a smaller sample is the
    beginning of a larger one; one pass, in the memory of the sample. A dataset that only streams gives its first
    `limit` instead: its reader shuffles by the seed.

    Args:
        dataset: what is sampled.
        limit: how many, at least 1; None for all.
        seed: names the sample.
        ids: take exactly these, in the same order as without them; `limit` then takes the first of these.

    Returns:
        The samples, and the bad records that were passed over on the way.

    Raises:
        InputError: an id is not there or is bad, or no record can be used.
        OptionError: `limit` is below 1, or `ids` is empty.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"limit must be at least 1, not {limit}.")
    if ids is not None and not ids:
        raise OptionError("The list of ids is empty: name one at least.")
    wanted = None if ids is None else frozenset(ids)
    failures: list[Failure] = []
    good = _good(dataset, wanted, failures)
    if dataset.streams and wanted is None:
        found = list(islice(good, limit))
    elif limit is None or wanted is not None:
        found = sorted(good, key=lambda sample: _key(sample, seed))
    else:
        found = heapq.nsmallest(limit, good, key=lambda sample: _key(sample, seed))
    if wanted is not None:
        _complain_of_missing(dataset, wanted - {sample.id for sample in found}, failures)
    if not found:
        raise InputError(_nothing(dataset, failures))
    return found[:limit], failures


def _key(sample: Sample, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{sample.id}".encode()).digest()


def _good(dataset: Dataset, wanted: frozenset[str] | None, failures: list[Failure]) -> Iterator[Sample]:
    """The usable samples, until all wanted ones were there; the others are put on a list."""
    missing = set(wanted or ())
    hopeless = dataset.streams
    for item in dataset:
        if isinstance(item, Failure):
            failures.append(item)
            if hopeless and len(failures) >= _HOPELESS:  # else a stream of URLs alone would be read to its end
                raise InputError(_nothing(dataset, failures))
            continue
        hopeless = False
        if wanted is None or item.id in wanted:
            yield item
        missing.discard(item.id)
        if wanted is not None and not missing:
            return


def _nothing(dataset: Dataset, failures: list[Failure]) -> str:
    if not failures:
        return f"The dataset {dataset.name} has no records: check its files."
    first = failures[0]
    return f"None of {len(failures):,} records of {dataset.name} can be used; the first, {first.id!r}: {first.reason}"


def _complain_of_missing(dataset: Dataset, missing: Iterable[str], failures: Iterable[Failure]) -> None:
    names = sorted(missing)
    if not names:
        return
    reasons = {failure.id: failure.reason for failure in failures}
    some = ", ".join(f"{name!r}" + (f" ({reasons[name]})" if name in reasons else "") for name in names[:3])
    raise InputError(
        f"The dataset {dataset.name} lacks {len(names):,} of the wanted ids, {some}{' ...' if len(names) > 3 else ''}: "
        "check the list of ids and the split."
    )


def write_ids(path: Path, ids: Iterable[str], *, dataset: str, seed: int) -> None:
    """Write a list of ids, one a line, under comments that name the dataset and the seed.

    Raises:
        SaveError: the file cannot be written.
    """
    lines = [f"# dataset: {dataset}", f"# seed: {seed}", "", *ids]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise SaveError(f"The ids cannot be written to {str(path)!r} ({error.strerror}): check the path.") from error


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids in a file of `write_ids`, or of one id a line; comments stand only at its head.

    Raises:
        InputError: the file cannot be read, or lists nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list of ids {str(path)!r} cannot be read: write one id a line, in UTF-8.") from error
    head = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    ids = tuple(dict.fromkeys(line.strip() for line in lines[head:] if line.strip()))
    if not ids:
        raise InputError(f"The list of ids {str(path)!r} is empty: write one id a line.")
    return ids
