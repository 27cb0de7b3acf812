"""Questions: the pairs that a sample gives: its caption, the names of the things on it, a caption with a wrong word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from isthmus.benchmark.choosing import chosen_texts
from isthmus.datasets.records import Failure
from isthmus.datasets.sample import Region, Sample, named_regions
from isthmus.encoders.dual import DualEncoder, Frame
from isthmus.encoders.pictures import open_picture
from isthmus.errors import InputError, IsthmusError
from isthmus.frozen import Array
from isthmus.metrics.foils import wrong_captions
from isthmus.metrics.pairs import Pairs, pairs_of
from isthmus.metrics.registry import Question

LEAST_AREA = 0.01  # of what the model sees; a smaller thing is lost between the patches


@dataclass(frozen=True, eq=False)
class Item:
    """One pair to explain, not yet opened.

    Attributes:
        id: unique in the run.
        sample: the sample that it is of.
        text: its text.
        regions: where what the text names is; empty where the question asks nothing of it.
        wrong: `(start, end)` of the wrong word, None where there is none.
    """

    id: str
    sample: Sample
    text: str
    regions: tuple[Region, ...] = ()
    wrong: tuple[int, int] | None = None


def items_of(
    samples: Sequence[Sample],
    question: Question,
    model: DualEncoder,
    *,
    choice: str = "best",
    seed: int = 0,
    batch_size: int = 32,
    failed: Callable[[Failure], None] | None = None,
    texts: Sequence[Sequence[str]] | None = None,
) -> list[Item]:
    """The pairs of a question.

    Args:
        samples: pictures with texts and truth.
        question: "caption", one text a picture; "region", `a photo of a NAME` for each name on it; "swap", a caption
            for each word of it that can be swapped for a wrong one.
        model: chooses the caption.
        choice: see `isthmus.benchmark.choosing.chosen_texts`.
        seed: of the swaps.
        batch_size: pairs at once.
        failed: told of samples whose picture cannot be used.
        texts: of each sample, where they were chosen already.
    """
    if question == "region":
        return [item for sample in samples for item in _regions(sample)]
    if texts is None:
        texts = chosen_texts(model, samples, choice=choice, batch_size=batch_size, failed=failed)
    found = []
    for sample, own in zip(samples, texts, strict=True):
        for n, text in enumerate(own):
            name = sample.id if len(own) == 1 else f"{sample.id}#text{n}"  # `#2` is a second record of this id
            found += [Item(name, sample, text)] if question == "caption" else _swaps(name, sample, text, seed)
    return found


def _regions(sample: Sample) -> list[Item]:
    things = named_regions(sample.truth.regions)
    return [Item(f"{sample.id}#{name}", sample, named(name), regions) for name, regions in things.items()]


def named(name: str) -> str:
    """The text that asks for a thing by its name."""
    return f"a photo of {'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _swaps(name: str, sample: Sample, text: str, seed: int) -> list[Item]:
    present = {region.name for region in sample.truth.regions}
    return [
        Item(f"{name}#{swap.kind}", sample, swap.text, wrong=(swap.start, swap.end))
        for swap in wrong_captions(text, seed=seed, id=name, present=present)
    ]


def opened(
    items: Sequence[Item], model: DualEncoder, *, seed: int = 0, failed: Callable[[Failure], None] | None = None
) -> tuple[Pairs | None, list[Any]]:
    """Read the pictures of a batch of items; those that cannot be used are told and left out.

    Returns:
        The pairs, None where none is left, and their pictures.
    """
    kept, pictures, places = [], [], []
    for item in items:
        try:
            picture = open_picture(item.sample.image)
            model.processing.texts([item.text], truncate=True)
            places.append(_place(item.regions, picture.image.size))
            kept.append(item)
            pictures.append(picture)
        except IsthmusError as error:
            if failed is not None:
                failed(Failure(item.id, str(error)))
    if not kept:
        return None, []
    wrong = [item.wrong for item in kept if item.wrong is not None]
    pairs = pairs_of(
        model,
        pictures,
        [item.text for item in kept],
        ids=[item.id for item in kept],
        wrong=wrong if len(wrong) == len(kept) else None,
        seed=seed,
        truncate=True,
    )
    if not kept[0].regions:
        return pairs, pictures
    masks = [seen_mask(place, frame) for place, frame in zip(places, pairs.frames, strict=True)]
    if len({mask.shape for mask in masks}) > 1:
        raise InputError("The model's inputs of these pictures have several sizes: use a batch size of 1.")
    return replace(pairs, regions=np.stack(masks), _kept={}), pictures


def some_of(pairs: Pairs, pictures: Sequence[Any], places: Sequence[int]) -> tuple[Pairs, list[Any]]:
    """Some of the pairs of a batch, by their places in it, and their pictures. They are read once for all methods."""
    own = [pictures[i] for i in places]

    def read() -> Pairs:
        return pairs_of(
            pairs.model,
            own,
            [pairs.texts[i] for i in places],
            ids=[pairs.ids[i] for i in places],
            regions=None if pairs.regions is None else pairs.regions[list(places)],
            wrong=None if pairs.wrong is None else [pairs.wrong[i] for i in places],
            seed=pairs.seed,
            truncate=True,
        )

    return pairs.once(("some of", tuple(places)), read), own


def _place(regions: Iterable[Region], size: tuple[int, int]) -> Array:
    """`(height, width)` bool of the picture: the union of regions. Raises InputError where one cannot be read."""
    found = np.zeros((size[1], size[0]), dtype=bool)
    for region in regions:
        found |= region.shape.mask(size)
    return found


def seen_mask(mask: Array, frame: Frame) -> Array:
    """A mask of the picture as far as the model sees it, in the pixels of the model's input.

    Args:
        mask: `(height, width)` bool of the picture.
        frame: which part of the picture the model saw.

    Returns:
        `(H, W)` bool; all False where it covers less than a hundredth of what the model sees.
    """
    height, width = frame.input_size
    crop = (frame.crop.left, frame.crop.top, frame.crop.right, frame.crop.bottom)
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    seen = image.transform((width, height), Image.Transform.EXTENT, crop, Image.Resampling.BILINEAR)
    found = np.asarray(seen) >= 128
    return found if found.mean() >= LEAST_AREA else np.zeros_like(found)
