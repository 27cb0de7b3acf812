"""The registry of datasets that Isthmus knows by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from isthmus.datasets import coco, conceptual, flickr8k, imagenet, index, rsicd, tiny_imagenet
from isthmus.datasets.options import Options, Reader
from isthmus.errors import InputError

NamedReader: TypeAlias = Callable[[Path, Options], tuple[Reader, str | None]]


@dataclass(frozen=True, eq=False)
class NamedDataset:
    """A dataset that has a name.

    Attributes:
        name: as users type it.
        title, paper: what it is called, and where it is described.
        summary: what it holds, in one line.
        licence: on what terms it is to be had; Isthmus ships and downloads none of it.
        needs: the files that are looked for in its root.
        reader: takes the root and the options; gives a reader, and the split that it reads.
        classes: whether its pictures belong to classes, so that `per_class` and `class_names` mean something.
        columns: whether some of its layouts have columns that the user may name.
    """

    name: str
    title: str
    paper: str
    summary: str
    licence: str
    needs: str
    reader: NamedReader
    classes: bool = False
    columns: bool = False


def _json_index(root: Path, options: Options) -> tuple[Reader, str | None]:
    if not root.is_file():
        raise InputError(f"The dataset json-index needs {index.NEEDS}: give the path of the .json as root.")
    return index.read_index(root, options), None


_ALL = (
    NamedDataset(
        "conceptual-captions",
        "Conceptual Captions (CC3M)",
        "Sharma et al., ACL 2018",
        "pictures of the web with their cleaned alt texts, one a picture",
        "free to use with credit to Google; the pictures belong to their owners",
        conceptual.NEEDS,
        conceptual.read_conceptual,
        columns=True,
    ),
    NamedDataset(
        "tiny-imagenet-200",
        "Tiny-ImageNet-200, the paper's ImageNet",
        "Le and Yang, Stanford CS231n 2015",
        "200 classes at 64 x 64 pixels with boxes; captions 'a photo of a' and all names of the class",
        "ImageNet's: research and teaching, not commercial",
        tiny_imagenet.NEEDS,
        tiny_imagenet.read_tiny_imagenet,
        classes=True,
    ),
    NamedDataset(
        "imagenet",
        "ImageNet-1k (ILSVRC 2012)",
        "Russakovsky et al., IJCV 2015",
        "1,000 classes, with Kaggle's boxes where they are there; captions as those of tiny-imagenet-200",
        "research and teaching, not commercial",
        imagenet.NEEDS,
        imagenet.read_imagenet,
        classes=True,
    ),
    NamedDataset(
        "flickr8k",
        "Flickr8k",
        "Hodosh, Young and Hockenmaier, JAIR 2013",
        "8,000 pictures with five captions each; the 1,000 of the dev split where no other is named",
        "research; the pictures belong to their owners",
        flickr8k.NEEDS,
        flickr8k.read_flickr8k,
        columns=True,
    ),
    NamedDataset(
        "rsicd",
        "RSICD",
        "Lu et al., IEEE TGRS 2018",
        "remote-sensing pictures with five captions each; the validation split where no other is named",
        "none is stated; research",
        rsicd.NEEDS,
        rsicd.read_rsicd,
        columns=True,
    ),
    NamedDataset(
        "coco",
        "COCO captions with masks",
        "Lin et al., ECCV 2014; Kirillov et al., CVPR 2019",
        "five captions a picture, and the masks of its things; val2017 where no other split is named",
        "annotations CC BY 4.0; the pictures have licences of their own, most of Creative Commons",
        coco.NEEDS,
        coco.read_coco,
    ),
    NamedDataset(
        "json-index",
        "A JSON list beside a folder of pictures",
        "",
        "captions, and boxes, polygons or panoptic segments where the objects of the list have them",
        "",
        index.NEEDS,
        _json_index,
        classes=True,
    ),
)
DATASETS: dict[str, NamedDataset] = {one.name: one for one in _ALL}
