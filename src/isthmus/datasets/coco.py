"""COCO (Lin et al., ECCV 2014): captions, and where things are, by instances or by panoptic segments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from isthmus.datasets.files import first_there, need, picture_folder, read_json
from isthmus.datasets.index import read_index_beside
from isthmus.datasets.options import Items, Options, Reader, same_split
from isthmus.datasets.records import Failure
from isthmus.datasets.regions import segmentation_shape
from isthmus.datasets.sample import Region, Sample, SegmentShape, Shape, Truth
from isthmus.datasets.values import BadRecordError, existing, texts_of
from isthmus.errors import InputError

NEEDS = (
    "annotations/captions_SPLIT.json, for masks instances_SPLIT.json or panoptic_SPLIT.json beside it, and SPLIT/*.jpg "
    "with SPLIT such as val2017; or coco.json"
)
_NAME = "COCO"
Regions: TypeAlias = Callable[[Any], tuple[Region, ...]]
Rows: TypeAlias = dict[Any, list[Mapping[str, Any]]]


def read_coco(root: Path, options: Options) -> tuple[Reader, str | None]:
    """A reader of COCO's own files; the split is `val2017` where none is given, `val` and `train` mean those of 2017.

    Regions are those of `instances_SPLIT.json`, else the things of `panoptic_SPLIT.json`, else none; crowds are left
    out. Masks are made when they are asked for.

    Raises:
        InputError: the root has not these files.
    """
    index = read_index_beside(root, "coco", options)
    if index is not None:
        return index, options.split
    split = options.split or "val2017"
    split = next((f"{short}2017" for short in ("val", "train") if same_split(split, short)), split)
    path = need(root, [f"annotations/captions_{split}.json", f"captions_{split}.json"], _NAME)
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise InputError(f"The file {str(path)!r} has no images: get a whole copy.")
    texts = _by_image(data, path)
    rows = data["images"]
    names = [row["file_name"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("file_name"), str)]
    folder = picture_folder(root, [split, f"images/{split}", "images"], names, _NAME)
    regions = _instances(root, split) or _panoptic(root, split)
    return lambda: _samples(rows, texts, regions, folder, options), split


def _samples(rows: Iterable[Any], texts: Rows, regions: Regions | None, folder: Path, options: Options) -> Items:
    for number, row in enumerate(rows, 1):
        name = str(row["id"]) if isinstance(row, Mapping) and "id" in row else f"image {number}"
        try:
            if not isinstance(row, Mapping) or not isinstance(row.get("file_name"), str):
                raise BadRecordError("It names no picture: give its file_name.")
            path = existing(folder / row["file_name"])
            captions = options.texts or texts_of([one.get("caption") for one in texts.get(row.get("id"), ())])
            yield Sample(name, path, captions, Truth(regions(row.get("id")) if regions is not None else ()))
        except BadRecordError as error:
            yield Failure(name, str(error))


def _instances(root: Path, split: str) -> Regions | None:
    """Things by polygons or run-length masks."""
    path = first_there(root, [f"annotations/instances_{split}.json", f"instances_{split}.json"])
    if path is None:
        return None
    data = read_json(path)
    rows, names = _by_image(data, path), _names(data)

    def of(image: Any) -> tuple[Region, ...]:
        there = [row for row in rows.get(image, ()) if not row.get("iscrowd")]
        return _regions(
            (names.get(row.get("category_id")), segmentation_shape(row.get("segmentation"))) for row in there
        )

    return of


def _panoptic(root: Path, split: str) -> Regions | None:
    """Things, but not stuff, by the segments of PNG files."""
    path = first_there(root, [f"annotations/panoptic_{split}.json", f"panoptic_{split}.json"])
    if path is None:
        return None
    data = read_json(path)
    rows, names = _by_image(data, path), _names(data, things=True)
    pngs = first_there(root, [f"annotations/panoptic_{split}", f"panoptic_{split}"]) or path.with_suffix("")

    def of(image: Any) -> tuple[Region, ...]:
        found: list[tuple[str | None, Shape | None]] = []
        for row in rows.get(image, ()):
            for segment in row.get("segments_info") or ():
                known = names.get(segment.get("category_id"))
                if known is not None and not segment.get("iscrowd"):
                    found.append((known, SegmentShape(pngs / str(row.get("file_name")), int(segment["id"]))))
        return _regions(found)

    return of


def _regions(found: Iterable[tuple[str | None, Shape | None]]) -> tuple[Region, ...]:
    regions = []
    for name, shape in found:
        if name is None:
            raise BadRecordError("A thing on it is of a category that is not in the list: check the annotations.")
        if shape is not None:
            regions.append(Region(name, shape))
    return tuple(regions)


def _names(data: Any, *, things: bool = False) -> dict[Any, str]:
    rows = [row for row in data.get("categories") or () if isinstance(row, Mapping)]
    return {row.get("id"): str(row.get("name")) for row in rows if not things or row.get("isthing", 1)}


def _by_image(data: Any, path: Path) -> Rows:
    if not isinstance(data, dict) or not isinstance(data.get("annotations"), list):
        raise InputError(f"The file {str(path)!r} has no annotations: get a whole copy.")
    found: Rows = defaultdict(list)
    for row in data["annotations"]:
        if isinstance(row, Mapping):
            found[row.get("image_id")].append(row)
    return found
