"""Which of a picture's captions is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from isthmus.benchmark.store import Store
from isthmus.datasets.records import Failure
from isthmus.datasets.sample import Sample
from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.pictures import Picture, open_picture
from isthmus.errors import InputError, IsthmusError, OptionError
from isthmus.targets import embeddings_of

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
    store: Store | None = None,
) -> list[tuple[str, ...]]:
    """The texts of each sample that are judged; none of a sample whose picture cannot be used.

    Args:
        model: what chooses.
        samples: pictures with texts.
        choice: one of `CHOICES`.
        batch_size: pictures at once.
        failed: told of samples that cannot be used.
        store: a run's folder, which keeps the choice; one of the same model, samples, choice and batch size.

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
    for number, start in enumerate(range(0, len(samples), batch_size)):
        batch = samples[start : start + batch_size]
        kept = None if store is None else store.texts(number, [sample.id for sample in batch])
        found += kept or _chosen(model, batch, number, choice == "paper", failed or _passed_over, store)
    return found


def _chosen(
    model: DualEncoder,
    samples: Sequence[Sample],
    number: int,
    by_first: bool,
    failed: Callable[[Failure], None],
    store: Store | None,
) -> list[tuple[str, ...]]:
    """Choose for a batch; the choice is kept where no sample failed, which may be mended and change the others'."""
    told: list[Failure] = []
    found = _of_batch(model, samples, by_first, told.append)
    for one in told:
        failed(one)
    if store is not None and not told:
        store.keep_texts(number, [sample.id for sample in samples], found)
    return found


def _of_batch(
    model: DualEncoder, samples: Sequence[Sample], by_first: bool, failed: Callable[[Failure], None]
) -> list[tuple[str, ...]]:
    """The text of each sample with the highest cosine with its picture, or with the first that can be used."""
    pictures: dict[int, Picture] = {}
    for i, sample in enumerate(samples):
        try:
            pictures[i] = open_picture(sample.image)
        except IsthmusError as error:
            failed(Failure(sample.id, str(error)))
    if not pictures:
        return [()] * len(samples)
    seen = dict(zip(pictures, embeddings_of(model, list(pictures.values()))[0], strict=True))
    first = next(iter(seen.values()))
    found: list[tuple[str, ...]] = []
    for i, sample in enumerate(samples):
        picture = first if by_first else seen.get(i)
        texts = [text for text in sample.texts if _readable(model, text)]
        if i in seen and not texts:
            failed(Failure(sample.id, "None of its texts can be read by this model: give at least one word."))
        if picture is None or not texts:
            found.append(())
            continue
        cosines = embeddings_of(model, texts, truncate=True)[0] @ picture
        found.append((texts[int(cosines.argmax())],))
    return found


def _passed_over(_: Failure) -> None:
    """Nobody asked to be told."""


def _readable(model: DualEncoder, text: str) -> bool:
    try:
        model.processing.texts([text], truncate=True)
    except InputError:
        return False
    return True
