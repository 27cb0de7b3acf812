"""Readers that yield pictures with their texts, and with what is known of them."""

from isthmus.datasets.opening import Dataset, open_dataset
from isthmus.datasets.records import Failure, Record, read_records
from isthmus.datasets.registry import DATASETS, NamedDataset
from isthmus.datasets.sample import (
    BoxShape,
    MaskShape,
    PolygonShape,
    Region,
    Sample,
    SegmentShape,
    Shape,
    Truth,
    named_regions,
)
from isthmus.datasets.sampling import read_ids, sampled, write_ids

__all__ = [
    "DATASETS",
    "BoxShape",
    "Dataset",
    "Failure",
    "MaskShape",
    "NamedDataset",
    "PolygonShape",
    "Record",
    "Region",
    "Sample",
    "SegmentShape",
    "Shape",
    "Truth",
    "named_regions",
    "open_dataset",
    "read_ids",
    "read_records",
    "sampled",
    "write_ids",
]
