"""A JSON list, one object a picture, beside a folder of the same stem: `coco.json` beside `coco/`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from isthmus.datasets.classes import PREFIX, Labelled, class_caption, first_name, per_class
from isthmus.datasets.files import read_json
from isthmus.datasets.options import Items, Options, Reader
from isthmus.datasets.records import Failure
from isthmus.datasets.regions import inclusive_box, object_region
from isthmus.datasets.sample import Region, Sample, Truth
from isthmus.datasets.values import BadRecordError, existing, file_name, texts_of
from isthmus.encoders.pictures import open_picture
from isthmus.errors import InputError, OptionError

NEEDS = "NAME.json, a JSON list with a caption or captions and a file, key or id in each object, beside a folder NAME"
_ROUNDING = 1e-6


def read_index(path: Path, options: Options, *, folder: Path | None = None) -> Reader:
    """A reader of an index.

    An object names its picture by `file`, or by `key` or `id` with `.jpg` (an `id` also with twelve digits, as COCO
    writes it), and has a `caption` or `captions`. It may have `objects`, each with a `name` and a `panoptic_id` (its
    segment in `NAME_panoptic/STEM.png`), a `segmentation` of COCO's kinds or a `box`; a `wnid` and a `box`, which go
    with a caption "a photo of a <names>"; and `original_width` and `original_height`, where the picture was padded
    to a square: the borders are cut away.

    Args:
        path: the index.
        options: `texts`, and for records with a `wnid` `per_class` and `class_names`.
        folder: of the pictures, where it is not the one of the same stem.

    Raises:
        InputError: the file is no such list, or there is no such folder.
        OptionError: a split is named, or `per_class` for records without a `wnid`.
    """
    records = read_json(path)
    folder = folder or path.with_suffix("")
    if not isinstance(records, list) or not records or not any(isinstance(record, Mapping) for record in records):
        raise InputError(f"The index {str(path)!r} is no list of objects: it needs {NEEDS}.")
    if not folder.is_dir():
        raise InputError(f"The index {str(path)!r} needs its pictures in {str(folder)!r}: put them there.")
    if options.split is not None:
        raise OptionError(f"The index {str(path)!r} is not parted into splits: leave the split {options.split!r} out.")
    if options.per_class is not None:
        records = _first_of_class(records, path, options.per_class)
    return lambda: _samples(records, folder, options)


def read_index_beside(root: Path, stem: str, options: Options) -> Reader | None:
    """A reader of `STEM.json` beside the folder `STEM`, where root holds them or is that file; else None."""
    path = root if root.is_file() else root / f"{stem}.json"
    if path.suffix.lower() == ".json" and path.is_file() and path.with_suffix("").is_dir():
        return read_index(path, options)
    return None


def _first_of_class(records: list[Any], path: Path, count: int) -> list[Any]:
    there = [record for record in records if isinstance(record, Mapping) and isinstance(record.get("wnid"), str)]
    if not there:
        raise OptionError(f"The records of {str(path)!r} have no class (wnid): leave per_class out.")
    by_file = {_name(record): record for record in there}
    return [
        by_file[one.file.name] for one in per_class([Labelled(Path(n), r["wnid"]) for n, r in by_file.items()], count)
    ]


def _name(record: Mapping[str, Any]) -> str:
    return next((str(record[key]) for key in ("id", "key", "file") if record.get(key) not in (None, "")), "")


def _samples(records: list[Any], folder: Path, options: Options) -> Items:
    for number, record in enumerate(records, 1):
        name = (_name(record) if isinstance(record, Mapping) else "") or f"record {number}"
        try:
            if not isinstance(record, Mapping):
                raise BadRecordError("It is no object: write one object a picture.")
            yield _sample(name, record, folder, options)
        except BadRecordError as error:
            yield Failure(name, str(error))


def _sample(name: str, record: Mapping[str, Any], folder: Path, options: Options) -> Sample:
    path = _file(record, folder)
    captions = record.get("captions")
    texts = texts_of(captions if captions is not None else record.get("caption"))
    truth, texts = _truth(record, path, folder, texts, options)
    padded = "original_width" in record or "original_height" in record
    image = _uncovered(path, record) if padded else path
    return Sample(name, image, options.texts or texts, truth, picture=file_name(path, folder))


def _file(record: Mapping[str, Any], folder: Path) -> Path:
    if isinstance(record.get("file"), str) and record["file"]:
        return existing(folder / record["file"])
    name = _name(record)
    if not name:
        raise BadRecordError("It names no picture: give a file, a key or an id.")
    padded = folder / f"{name.zfill(12)}.jpg"
    return padded if padded.is_file() else existing(folder / f"{name}.jpg")


def _truth(
    record: Mapping[str, Any], path: Path, folder: Path, texts: tuple[str, ...], options: Options
) -> tuple[Truth, tuple[str, ...]]:
    """What is known of the picture, and its texts, with as many names of the class as are wanted."""
    png = folder.with_name(f"{folder.name}_panoptic") / f"{path.stem}.png"
    found = [object_region(thing, png) for thing in record.get("objects") or ()]
    regions = tuple(region for region in found if region is not None)
    names = texts[0].removeprefix(PREFIX)
    if not isinstance(record.get("wnid"), str) or names == texts[0]:
        return Truth(regions), texts
    label = first_name(names)
    if "box" in record:
        regions = (*regions, Region(label, inclusive_box(record["box"])))
    return Truth(regions, label), (class_caption(names, options), *texts[1:])


def _uncovered(path: Path, record: Mapping[str, Any]) -> Image.Image:
    """The picture without the borders that made it square; half a border pixel is cut, none is left."""
    width, height = record.get("original_width"), record.get("original_height")
    if not (isinstance(width, (int, float)) and isinstance(height, (int, float)) and width > 0 and height > 0):
        raise BadRecordError("Its original width and height are not numbers above 0: mend the index.")
    try:
        image = open_picture(path).image
    except InputError as error:
        raise BadRecordError(str(error)) from error
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    x, y = math.ceil(left - _ROUNDING), math.ceil(top - _ROUNDING)
    return image.crop((x, y, image.width - x, image.height - y))
