"""Which of a picture's captions is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from isthmus.datasets.records import Failure
from isthmus.datasets.sample import Sample
from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.tower import unit
from isthmus.errors import InputError, IsthmusError, OptionError

Choice = Literal["best", "first", "all", "paper"]
CHOICES = {
    "best": "the caption with the highest cosine with its picture",
    "first": "the first caption",
    "all": "every caption",
    "paper": "as the paper's code chooses for Flickr8k: the highest cosine with the first picture of the batch",
}


def chosen_texts(
    model: DualEncoder,
    samples: Sequence[Sample],
    *,
    choice: str = "best",
    batch_size: int = 32,
    failed: Callable[[Failure], None] | None = None,
) -> list[tuple[str, ...]]:
    """The texts of each sample that are judged; none of a sample whose picture cannot be used.

    Raises:
        OptionError: no such choice.
    """
    if choice not in CHOICES:
        raise OptionError(f"There is no choice {choice!r} of captions: choose one of {', '.join(CHOICES)}.")
    if choice == "all":
        return [sample.texts for sample in samples]
    if choice == "first" or all(len(sample.texts) == 1 for sample in samples):
        return [sample.texts[:1] for sample in samples]
    found: list[tuple[str, ...]] = []
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        pictures = [_picture(model, sample, failed) for sample in part]
        if choice == "paper":
            pictures = [next((one for one in pictures if one is not None), None)] * len(part)
        for sample, picture in zip(part, pictures, strict=True):
            found.append(() if picture is None else _highest(model, sample, picture))
            if picture is not None and not found[-1] and failed is not None:
                failed(Failure(sample.id, "None of its texts can be read by this model: give at least one word."))
    return found


def _picture(model: DualEncoder, sample: Sample, failed: Callable[[Failure], None] | None) -> Tensor | None:
    try:
        inputs, _, _ = model.processing.pictures([open_picture(sample.image)])
        return unit(model.image.embed(inputs))[0]
    except IsthmusError as error:
        if failed is not None:
            failed(Failure(sample.id, str(error)))
        return None


def _highest(model: DualEncoder, sample: Sample, picture: Tensor) -> tuple[str, ...]:
    texts = [text for text in sample.texts if _readable(model, text)]
    if not texts:
        return ()
    inputs, _, _ = model.processing.texts(texts, truncate=True)
    cosines = unit(model.text.embed(inputs)) @ picture
    return (texts[int(torch.argmax(cosines))],)


def _readable(model: DualEncoder, text: str) -> bool:
    try:
        model.processing.texts([text], truncate=True)
    except InputError:
        return False
    return True
