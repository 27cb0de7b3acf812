"""Opens a picture again by a row's `where`; where that fails there is none, and never an error."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import Any

from PIL import Image

from isthmus.encoders.pictures import open_picture
from isthmus.extras import needed
from isthmus.frozen import Array


def picture_again(where: Mapping[str, Any] | None, longest: int) -> Array | None:
    """A small copy `(height, width, 3)` uint8 of a picture, upright; None where it is no longer to be had.

    Args:
        where: see `isthmus.scale.schema.Where`.
        longest: pixels of its longer side.
    """
    try:
        content = None if where is None else _content(where)
        if content is None:
            return None
        with Image.open(io.BytesIO(content)) as image:
            small = open_picture(image).image
            small.thumbnail((longest, longest))
            return _array(small)
    except Exception:  # moved, changed, forbidden, on a machine that sleeps: the report shows a grey field there
        return None


def _array(image: Image.Image) -> Array:
    import numpy as np

    return np.asarray(image.convert("RGB"))


def _content(where: Mapping[str, Any]) -> bytes | None:
    if str(where["file"]).startswith("hf:"):
        return None  # a hub's dataset is not fetched for a report
    with needed("fsspec.core").open(where["file"], "rb") as stream:
        if where.get("member") is not None:
            return _member(stream, where["member"])
        if where.get("row") is not None:
            return _cell(stream, int(where["row"]), where["column"])
        return bytes(stream.read())


def _member(stream: Any, name: str) -> bytes | None:
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            if member.name.removeprefix("./").lower() == name.removeprefix("./").lower():  # readers lower suffixes
                found = archive.extractfile(member)
                return None if found is None else found.read()
    return None


def _cell(stream: Any, row: int, column: str) -> bytes | None:
    with needed("pyarrow.parquet").ParquetFile(stream) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row < count:
                value = file.read_row_group(group, columns=[column]).column(0)[row].as_py()
                return bytes(value["bytes"] if isinstance(value, dict) else value)
            row -= count
    return None
