"""Annotations of COCO's kinds as shapes: polygons, run-length masks, panoptic segments, boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.datasets.rle import run_shape
from isthmus.datasets.sample import BoxShape, PolygonShape, Region, SegmentShape, Shape
from isthmus.datasets.values import BadRecordError


def segmentation_shape(segmentation: Any) -> Shape | None:
    """Polygons or a run-length mask as a shape; None where it encloses nothing. Raises BadRecordError for others."""
    if isinstance(segmentation, Mapping):
        return run_shape(segmentation)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise BadRecordError("A thing on it is neither polygons nor a run-length mask: mend the annotation.")
    try:
        polygons = [tuple(float(number) for number in points) for points in segmentation]
    except (TypeError, ValueError) as error:
        raise BadRecordError(
            "A thing on it has a polygon that holds other than numbers: mend the annotation."
        ) from error
    kept = tuple(points for points in polygons if len(points) >= 6 and len(points) % 2 == 0)
    return PolygonShape(kept) if kept else None


def inclusive_box(corners: Any) -> BoxShape:
    """A box from `x0, y0, x1, y1`, the first and the last pixel inside. Raises BadRecordError where it is none."""
    try:
        left, top, right, bottom = (float(number) for number in corners)
    except (TypeError, ValueError) as error:
        raise BadRecordError("Its box is not four numbers: mend the annotation.") from error
    if not (left <= right and top <= bottom):
        raise BadRecordError("Its box ends before it begins: mend the annotation.")
    return BoxShape(left, top, right + 1, bottom + 1)


def object_region(thing: Any, png: Path) -> Region | None:
    """An object of an index, `{"name", "panoptic_id" | "segmentation" | "box"}`; None where it encloses nothing.

    Raises:
        BadRecordError: it has no name or place.
    """
    name = thing.get("name") if isinstance(thing, Mapping) else None
    if not isinstance(name, str) or not name.strip():
        raise BadRecordError("A thing on it has no name: mend the annotation.")
    shape: Shape | None
    if isinstance(thing.get("panoptic_id"), int):
        shape = SegmentShape(png, thing["panoptic_id"])
    elif "segmentation" in thing:
        shape = segmentation_shape(thing["segmentation"])
    else:
        shape = inclusive_box(thing.get("box"))
    return Region(name.strip(), shape) if shape is not None else None
