"""The team's data, where it is there: every picture of it is read, and every mask holds something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isthmus.datasets import Sample, open_dataset, sampled
from isthmus.encoders.pictures import open_picture

COUNTS = {"tiny-imagenet-200": 1000, "flickr8k": 1000, "conceptual-captions": 600, "coco": 177, "rsicd": 60}


@pytest.fixture(scope="module")
def data(shared: Path) -> Path:
    if not (shared / "data" / "coco.json").is_file():
        pytest.skip(f"needs the team's pictures, which are not at {shared / 'data'}")
    return shared / "data"


@pytest.mark.parametrize("name", list(COUNTS))
def test_all_records_are_read(data: Path, name: str) -> None:
    samples, failures = sampled(open_dataset(name, root=data))
    assert (len(samples), len(failures)) == (COUNTS[name], 0)
    assert len({sample.id for sample in samples}) == len(samples)
    open_picture(samples[0].image)
    wanted = 5 if name in ("flickr8k", "coco", "rsicd") else 1
    assert all(len(sample.texts) >= wanted for sample in samples)


def test_masks_hold_something(data: Path) -> None:
    samples, _ = sampled(open_dataset("coco", root=data), limit=30)
    for sample in samples:
        with Image.open(sample.image) as image:
            size = image.size
        assert sample.truth.regions
        for region in sample.truth.regions:
            mask = region.shape.mask(size)
            assert mask.shape == (size[1], size[0])
            assert mask.any()
            assert not mask.all()


def test_classes_are_balanced_and_boxes_lie_in_the_picture(data: Path) -> None:
    samples = [item for item in open_dataset("tiny-imagenet-200", root=data, per_class=2) if isinstance(item, Sample)]
    assert len(samples) == 400
    assert all(sample.texts[0].startswith("a photo of a ") for sample in samples)
    assert len({sample.truth.label for sample in samples}) == 200
    assert all(sample.truth.regions[0].shape.mask((64, 64)).any() for sample in samples)


def test_no_white_border_is_left(data: Path) -> None:
    """The rows and columns next to the cut are of the picture, not of the border, in nearly all pictures."""
    samples, _ = sampled(open_dataset("conceptual-captions", root=data), limit=100)
    white = 0
    for sample in samples:
        pixels = np.asarray(sample.image.convert("L"), dtype=float)
        wide = pixels.shape[1] >= pixels.shape[0]
        edges = (pixels[0], pixels[-1]) if wide else (pixels[:, 0], pixels[:, -1])
        white += all(edge.mean() > 250 for edge in edges)
        assert max(pixels.shape) == 256
    assert white < 15  # pictures of things on a white ground
