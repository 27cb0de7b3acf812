"""RSICD (Lu et al., IEEE TGRS 2018): 10,921 remote-sensing pictures with five captions each."""

from __future__ import annotations

from pathlib import Path

from isthmus.datasets.captions import FOLDERS, read_caption_file
from isthmus.datasets.files import MissingFilesError, first_there
from isthmus.datasets.index import read_index_beside
from isthmus.datasets.options import Options, Reader
from isthmus.datasets.parquet import parquet_files, read_named_parquet

NEEDS = "dataset_rsicd.json with RSICD_images, Parquet files (arampacha/rsicd), or rsicd.json"
_FOLDERS = ("RSICD_images", "rsicd_images", *FOLDERS)
_JSON = ("dataset_rsicd.json", "annotations_rsicd/dataset_rsicd.json")


def read_rsicd(root: Path, options: Options) -> tuple[Reader, str | None]:
    """A reader of RSICD with all captions of a picture; the split is `val` where none is given.

    Raises:
        InputError: the root holds none of the known layouts, or not this split.
    """
    index = read_index_beside(root, "rsicd", options)
    if index is not None:
        return index, options.split
    json = first_there(root, _JSON)
    if json is not None:
        return read_caption_file(json, root, options, dataset="RSICD", folders=_FOLDERS, split="val")
    files = parquet_files(root)
    if files:
        return read_named_parquet(files, options, split="val")
    raise MissingFilesError(f"RSICD needs {NEEDS} in {str(root)!r}: give the folder that holds it as root.")
