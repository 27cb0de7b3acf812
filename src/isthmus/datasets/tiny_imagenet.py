"""Tiny-ImageNet-200 (Stanford CS231n): 200 classes at 64 x 64 pixels; the paper's ImageNet."""

from __future__ import annotations

from pathlib import Path

from isthmus.datasets.classes import Labelled, class_samples, per_class, synset_names
from isthmus.datasets.files import MissingFilesError, need, read_lines
from isthmus.datasets.index import read_index_beside
from isthmus.datasets.options import Options, Reader, same_split
from isthmus.datasets.records import Failure
from isthmus.errors import InputError

NEEDS = "words.txt and val/val_annotations.txt with val/images, or train/nXXXXXXXX; or tinyimagenet.json"
_NAME = "Tiny-ImageNet-200"


def read_tiny_imagenet(root: Path, options: Options) -> tuple[Reader, str | None]:
    """A reader of the original archive's folders; the split is `val` where none is given, and may be `train`.

    Raises:
        InputError: the root has not these folders.
    """
    for stem in ("tinyimagenet", "tiny-imagenet-200"):
        index = read_index_beside(root, stem, options)
        if index is not None:
            return index, options.split
    split = options.split or "val"
    names = synset_names(need(root, ["words.txt"], _NAME))
    if same_split(split, "val"):
        found = _val(root)
    elif same_split(split, "train"):
        found = _train(root)
    else:
        raise InputError(f"{_NAME} has classes for the splits val and train, not for {split!r}: choose one of them.")
    bad = [one for one in found if isinstance(one, Failure)]
    kept = per_class((one for one in found if isinstance(one, Labelled)), options.per_class)
    return lambda: class_samples([*kept, *bad], names, options), split


def _val(root: Path) -> list[Labelled | Failure]:
    """`val/val_annotations.txt`: file, wnid, x0, y0, x1, y1, parted by tabs."""
    annotations = need(root, ["val/val_annotations.txt"], _NAME)
    found: list[Labelled | Failure] = []
    for number, line in enumerate(read_lines(annotations), 1):
        parts = line.split()
        if len(parts) == 6:
            found.append(Labelled(root / "val" / "images" / parts[0], parts[1], (parts[2:],)))
        else:
            found.append(Failure(f"line {number}", "Its line is not a file, a class and a box: mend the annotations."))
    return found


def _train(root: Path) -> list[Labelled | Failure]:
    """`train/WNID/WNID_boxes.txt`: file, x0, y0, x1, y1, parted by tabs; pictures in `train/WNID/images`."""
    found: list[Labelled | Failure] = []
    for folder in sorted(need(root, ["train"], _NAME).glob("n*")):
        boxes = folder / f"{folder.name}_boxes.txt"
        for number, line in enumerate(read_lines(boxes) if boxes.is_file() else [], 1):
            parts = line.split()
            if len(parts) == 5:
                found.append(Labelled(folder / "images" / parts[0], folder.name, (parts[1:],)))
            else:
                found.append(Failure(f"{folder.name} line {number}", "Its line is not a file and a box: mend it."))
    if not found:
        raise MissingFilesError(
            f"{_NAME} needs train/nXXXXXXXX/nXXXXXXXX_boxes.txt in {str(root)!r}: unpack the archive there."
        )
    return found
