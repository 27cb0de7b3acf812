"""Readies pictures and texts of a call: each once, in batches of little padding, ahead of the batch that needs them.

Threads open and resize pictures while the model runs: Pillow and numpy let go of the interpreter meanwhile. All else
happens in the thread of the call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from isthmus.encoders.dual import DualEncoder, Frame, PreparedImage
from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.pictures import Picture, display_copy, open_picture
from isthmus.encoders.reference import together
from isthmus.encoders.sharing import Same, Shared, digests_of
from isthmus.encoders.tower import Inputs, Side, unit
from isthmus.errors import InputError

STANDS_FOR = "isthmus_stands_for"  # the attribute of a picture that names an object, in whose place it came
_THREADS = 8


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture of the call as a result keeps it: a copy `(h, w, 3)` uint8 for drawing, and its path or ""."""

    pixels: npt.NDArray[np.uint8]
    source: str

    @property
    def picture(self) -> Picture:
        """The copy as a picture."""
        return Picture(Image.fromarray(self.pixels), self.source)


@dataclass(frozen=True, eq=False)
class Batch:
    """One side of B pairs: its inputs and unit embeddings, what its positions are, and what a result tells of it.

    Frames and `shown` are of pictures, notes and texts of texts.
    """

    inputs: Inputs
    embeddings: Tensor
    layouts: list[TokenLayout]
    frames: Sequence[Frame] = ()
    shown: Sequence[Shown] = ()
    notes: Sequence[str] = ()
    texts: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Ready:
    """A picture as the model takes it: inputs of one row, with the digests of their bytes.

    Whoever makes one ahead of a call, by `ready`, gives it to the call in place of the picture.
    """

    inputs: Inputs
    digests: dict[str, bytes]
    frame: Frame
    layout: TokenLayout
    shown: Shown

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.shown.pixels.nbytes + sum(v.nbytes for v in self.inputs.values() if isinstance(v, Tensor))


class Preparing:
    """The pictures and texts of a call; to be used in a `with`, which ends its threads.

    Args:
        model: the model that takes them.
        pictures, texts: of the call; None in place of all of a side that is not there.
        pairs: for each pair the places of its picture and its text.
        truncate: cut texts that are too long.
        shared: the store of the call, which keeps what is ready.
        cut: where the call is going to split a side's tower; None where that is not known.
    """

    def __init__(
        self,
        model: DualEncoder,
        pictures: Sequence[Any] | None,
        texts: Sequence[str] | None,
        pairs: Sequence[tuple[int, int]],
        *,
        truncate: bool,
        shared: Shared,
        cut: Callable[[Side], float | None],
    ) -> None:
        """Nothing is opened yet; see the class."""
        self._model, self._pictures, self._captions, self._pairs = model, pictures, texts, pairs
        self._truncate, self._shared, self._cut = truncate, shared, cut
        self._coming: dict[Hashable, Future[Ready]] = {}
        self._pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="isthmus")

    def __enter__(self) -> Preparing:
        """See the class."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for pictures that are being opened, and open no other."""
        self._pool.shutdown(cancel_futures=True)

    def ahead(self, batch: Sequence[int]) -> None:
        """Begin to open the pictures of a batch of pairs; for a picture alone no thread is worth its while."""
        if self._pictures is None or len(self._pictures) == 1:
            return
        for item in (self._pictures[self._pairs[n][0]] for n in batch):
            if isinstance(item, Ready):
                continue
            key = self._key(item)
            if key not in self._coming and self._shared.get(key) is None:
                self._coming[key] = self._pool.submit(ready, self._model, item)

    def of(self, batch: Sequence[int]) -> dict[Side, Batch]:
        """The sides of a batch of pairs.

        Raises:
            InputError: a picture or text that cannot be used.
            ModelError: an embedding is not finite.
        """
        found: dict[Side, Batch] = {}
        if self._pictures is not None:
            found["image"] = self._images([self._pictures[self._pairs[n][0]] for n in batch])
        if self._captions is not None:
            found["text"] = self._texts([self._captions[self._pairs[n][1]] for n in batch])
        return found

    def _images(self, pictures: Sequence[Any]) -> Batch:
        ones = {key: self._one(item) for key, item in {self._key(item): item for item in pictures}.items()}
        rows = [self._key(item) for item in pictures]
        inputs = _expanded(_joined([one.inputs for one in ones.values()]), list(ones), rows)
        for name, value in inputs.items():
            if isinstance(value, Tensor) and all(_fits(one.inputs[name], value) for one in ones.values()):
                self._shared.tell(value, [ones[row].digests[name] for row in rows])
        return Batch(
            inputs,
            unit(self._model.image.embed(inputs, cut=self._cut("image"))),
            [ones[row].layout for row in rows],
            frames=[ones[row].frame for row in rows],
            shown=[ones[row].shown for row in rows],
        )

    def _one(self, item: Any) -> Ready:
        if isinstance(item, Ready):
            return item
        key = self._key(item)
        found: Ready | None = self._shared.get(key)
        if found is None:
            coming = self._coming.pop(key, None)
            found = ready(self._model, item) if coming is None else coming.result()
            self._shared.put(key, found, found.size)
        return found

    def _texts(self, texts: Sequence[str]) -> Batch:
        for text in texts:
            if not isinstance(text, str):
                raise InputError(f"A text must be a string, not {type(text).__name__}.")
        distinct = list(dict.fromkeys(texts))
        key = "texts", Same(self._model.processing), tuple(distinct), self._truncate
        found = self._shared.get(key)
        if found is None:
            found = self._model.processing.texts(distinct, truncate=self._truncate)
            self._shared.put(key, found, sum(value.nbytes for value in found[0].values() if isinstance(value, Tensor)))
        inputs, layouts, notes = found
        inputs, place = _expanded(inputs, distinct, texts), {text: row for row, text in enumerate(distinct)}
        return Batch(
            inputs,
            unit(self._model.text.embed(inputs, cut=self._cut("text"))),
            [layouts[place[text]] for text in texts],
            notes=[notes[place[text]] for text in texts],
            texts=texts,
        )

    def _key(self, item: Any) -> Hashable:
        return "picture", Same(self._model.processing), key_of(item)


def key_of(picture: Any) -> Hashable:
    """What tells a picture of a call from others: its path, or the object, or what the object says stands for it.

    A key is kept as long as what the model made of the picture, which may be longer than the picture should be.
    """
    return str(picture) if isinstance(picture, (str, Path)) else Same(getattr(picture, STANDS_FOR, picture))


def ready(model: DualEncoder, item: Any) -> Ready:
    """A picture of whatever kind, made ready for a model; in any thread. Raises InputError where it cannot be used."""
    picture = item if isinstance(item, PreparedImage) else open_picture(item)
    with torch.inference_mode(False):
        inputs, (frame,), (layout,) = model.processing.pictures([picture])
    shown = model.processing.shown(picture) if isinstance(picture, PreparedImage) else picture
    digests = {name: digests_of(value)[0] for name, value in inputs.items() if isinstance(value, Tensor)}
    return Ready(inputs, digests, frame, layout, Shown(display_copy(shown), shown.source))


def _joined(inputs: Sequence[Inputs]) -> Inputs:
    """One batch of pictures. Raises InputError where they are grids of pixels of several sizes."""
    sizes = {
        value.shape[2:] for one in inputs for value in one.values() if isinstance(value, Tensor) and value.ndim > 3
    }
    if len(sizes) > 1:
        raise InputError(
            f"The model's inputs of these pictures have {len(sizes)} sizes: explain pictures of one size at once "
            "(batch_size=1), or load the model with an image_size."
        )
    return together(inputs)


def _expanded(inputs: Inputs, distinct: Sequence[Hashable], rows: Sequence[Hashable]) -> dict[str, Any]:
    """Inputs of `distinct` rows as those of all rows."""
    if len(distinct) == len(rows):
        return dict(inputs)
    place = {key: row for row, key in enumerate(distinct)}
    index = [place[row] for row in rows]
    return {name: value[index] if isinstance(value, Tensor) else value for name, value in inputs.items()}


def _fits(one: Tensor, batch: Tensor) -> bool:
    """Whether a row was not padded when it joined the batch."""
    return one.shape[1:] == batch.shape[1:]


def planned(
    pairs: Sequence[tuple[int, int]], pictures: Sequence[Any], texts: Sequence[Any], size: int
) -> list[list[int]]:
    """Places of pairs, by batches of at most `size`: those of one picture together, texts of like length together."""
    if len(pairs) <= size:
        return [[*range(len(pairs))]]
    groups: dict[Hashable, list[int]] = {}
    for place, (i, _) in enumerate(pairs):
        groups.setdefault(key_of(pictures[i]), []).append(place)
    length = [len(texts[j]) if isinstance(texts[j], str) else 0 for _, j in pairs]
    for group in groups.values():
        group.sort(key=lambda place: length[place])
    batches: list[list[int]] = [[]]
    for group in sorted(groups.values(), key=lambda group: length[group[-1]]):
        parts = -(-len(group) // size)
        share = -(-len(group) // parts)  # parts of like size, so that each picture's are the same
        for start in range(0, len(group), share):
            part = group[start : start + share]
            if len(batches[-1]) + len(part) > size:
                batches.append([])
            batches[-1] += part
    return batches
