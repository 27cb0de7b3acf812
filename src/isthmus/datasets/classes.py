"""Pictures that belong to WordNet synsets, as those of the ImageNet family do; captions as the paper makes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.datasets.files import read_lines
from isthmus.datasets.options import Items, Options
from isthmus.datasets.records import Failure
from isthmus.datasets.regions import inclusive_box
from isthmus.datasets.sample import Region, Sample, Truth
from isthmus.datasets.values import BadRecordError, existing, natural

PREFIX = "a photo of a "


@dataclass(frozen=True)
class Labelled:
    """A picture, its synset, and its boxes `(x0, y0, x1, y1)` with the last pixel inside."""

    file: Path
    wnid: str
    boxes: Sequence[Sequence[Any]] = ()


def synset_names(path: Path) -> dict[str, str]:
    """`words.txt` or `LOC_synset_mapping.txt`: a wnid, a tab or space, and all names of the synset, by the wnid."""
    pairs = (line.split(maxsplit=1) for line in read_lines(path))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def first_name(names: str) -> str:
    """The first of a synset's names, which are parted by commas."""
    return names.partition(",")[0].strip()


def class_caption(names: str, options: Options) -> str:
    """The paper's caption: the whole line of the synset, all names with their commas; or with the first name alone."""
    return PREFIX + (names if options.class_names == "all" else first_name(names))


def per_class(found: Iterable[Labelled], count: int | None) -> list[Labelled]:
    """The first `count` pictures of each synset, by the numbers in their names; all, in that order, for None."""
    ordered = sorted(found, key=lambda one: natural(one.file.name))
    if count is None:
        return ordered
    seen: Counter[str] = Counter()
    chosen = []
    for one in ordered:
        seen[one.wnid] += 1
        if seen[one.wnid] <= count:
            chosen.append(one)
    return chosen


def class_samples(found: Iterable[Labelled | Failure], names: Mapping[str, str], options: Options) -> Items:
    """A sample for each picture, named by its file, with its class and boxes as truth."""
    for one in found:
        if isinstance(one, Failure):
            yield one
            continue
        try:
            yield _sample(one, names, options)
        except BadRecordError as error:
            yield Failure(one.file.name, str(error))


def _sample(one: Labelled, names: Mapping[str, str], options: Options) -> Sample:
    if one.wnid not in names:
        raise BadRecordError(f"Its class {one.wnid!r} is not in the list of names: check the list.")
    name = first_name(names[one.wnid])
    regions = tuple(Region(name, inclusive_box(box)) for box in one.boxes)
    texts = options.texts or (class_caption(names[one.wnid], options),)
    path, truth = existing(one.file), Truth(regions, label=name)
    return Sample(one.file.name, path, texts, truth, picture=f"{one.wnid}/{one.file.name}")
