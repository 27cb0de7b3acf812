"""ImageNet-1k (Russakovsky et al., IJCV 2015), in folders by class, or flat as Kaggle gives it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from isthmus.datasets.classes import Labelled, class_samples, per_class, synset_names
from isthmus.datasets.files import MissingFilesError, first_there, need
from isthmus.datasets.options import Options, Reader
from isthmus.datasets.records import Failure
from isthmus.datasets.tables import rows_of
from isthmus.encoders.pictures import PICTURE_SUFFIXES

NEEDS = (
    "LOC_synset_mapping.txt or words.txt, and val/nXXXXXXXX/*.JPEG, or ILSVRC2012_val_*.JPEG with LOC_val_solution.csv"
)
_NAME = "ImageNet"
_NAMES = ("LOC_synset_mapping.txt", "words.txt", "synset_words.txt")


def read_imagenet(root: Path, options: Options) -> tuple[Reader, str | None]:
    """A reader of folders `SPLIT/WNID/*.JPEG`, or of flat pictures with Kaggle's solution; `val` without a split.

    Raises:
        InputError: the names of the classes, the pictures, or their classes are missing.
    """
    split = options.split or "val"
    names = synset_names(need(root, _NAMES, _NAME))
    folder = need(root, [split, f"ILSVRC/Data/CLS-LOC/{split}", f"Data/CLS-LOC/{split}", "."], _NAME)
    solutions, bad = _solutions(root, split)
    found: list[Labelled] = []
    for path in _pictures(folder, names):
        nested = path.parent.name if path.parent.name in names else None
        wnid, boxes = solutions.get(path.stem, (nested, ()))
        if nested is None and wnid is None:
            bad.append(Failure(path.name, f"Its class is not in LOC_{split}_solution.csv: check the file."))
        else:
            found.append(Labelled(path, nested or str(wnid), boxes))
    if not found:
        raise MissingFilesError(f"{_NAME} needs {NEEDS} in {str(root)!r}: give the folder that holds them as root.")
    kept = per_class(found, options.per_class)
    return lambda: class_samples([*kept, *bad], names, options), split


def _pictures(folder: Path, names: Mapping[str, str]) -> list[Path]:
    """Pictures in the folder and in the folders of its classes."""
    found: list[Path] = []
    for one in (folder, *(folder / name for name in sorted(names))):
        if one.is_dir():
            with os.scandir(one) as entries:
                found += [Path(e.path) for e in entries if Path(e.name).suffix.lower() in PICTURE_SUFFIXES]
    return found


Solutions = dict[str, tuple[str | None, Sequence[Sequence[str]]]]


def _solutions(root: Path, split: str) -> tuple[Solutions, list[Failure]]:
    """Kaggle's `ImageId,PredictionString`: a picture's boxes, each `WNID x0 y0 x1 y1`, one after another."""
    path = first_there(root, [f"LOC_{split}_solution.csv"])
    found: Solutions = {}
    bad: list[Failure] = []
    for number, row in enumerate(rows_of(path) if path is not None else (), 1):
        parts = str(row.get("PredictionString") or "").split() if isinstance(row, dict) else []
        if not isinstance(row, dict) or not parts or len(parts) % 5:
            bad.append(
                Failure(f"row {number} of the solution", "It is not a class and a box, again and again: mend it.")
            )
            continue
        boxes = [parts[n + 1 : n + 5] for n in range(0, len(parts), 5)]
        found[str(row.get("ImageId"))] = (parts[0], boxes)
    return found, bad
