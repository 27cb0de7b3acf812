"""DualEncoder: an image tower and a text tower with one joint space, and what makes their inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.pictures import Picture
from isthmus.encoders.sharing import Store
from isthmus.encoders.tower import Inputs, Side, Tower
from isthmus.encoders.weights import device_of, dtype_of, fingerprint, version_of
from isthmus.explanation import Box

_TEXTS = 16 << 20
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A picture already resized and normalised as the model wants it: `pixel_values` of `(3, height, width)`."""

    pixel_values: Tensor


@dataclass(frozen=True)
class Frame:
    """How a picture became the model's input.

    `crop` is the part seen, in the picture's pixels; `size` the picture's `(width, height)`; `input_size` the
    input's `(height, width)`.
    """

    crop: Box
    size: tuple[int, int]
    input_size: tuple[int, int]


class Processing(Protocol):
    """Turns pictures and texts into the inputs of a model's towers."""

    def pictures(self, pictures: Sequence[Picture | PreparedImage]) -> tuple[Inputs, list[Frame], list[TokenLayout]]:
        """Inputs of the image tower, and for each picture its frame and the layout of its positions.

        `explain` asks for one picture at a time, in several threads at once.
        """

    def texts(self, texts: Sequence[str], *, truncate: bool) -> tuple[Inputs, list[TokenLayout], list[str]]:
        """Inputs of the text tower, and for each text its layout and a note ("" where none is due)."""

    def shown(self, prepared: PreparedImage) -> Picture:
        """The picture that a prepared input shows."""


class Pictures(Protocol):
    """The half of `Processing` that reads pictures."""

    def pictures(self, pictures: Sequence[Picture | PreparedImage]) -> tuple[Inputs, list[Frame], list[TokenLayout]]:
        """See `Processing`."""

    def shown(self, prepared: PreparedImage, /) -> Picture:
        """See `Processing`."""


class Texts(Protocol):
    """The half of `Processing` that reads texts."""

    def texts(self, texts: Sequence[str], *, truncate: bool) -> tuple[Inputs, list[TokenLayout], list[str]]:
        """See `Processing`."""


@dataclass(frozen=True, eq=False)
class Readers:
    """A `Processing` of a reader of pictures and one of texts."""

    of_pictures: Pictures
    of_texts: Texts

    def pictures(self, pictures: Sequence[Picture | PreparedImage]) -> tuple[Inputs, list[Frame], list[TokenLayout]]:
        """See `Processing`."""
        return self.of_pictures.pictures(pictures)

    def texts(self, texts: Sequence[str], *, truncate: bool) -> tuple[Inputs, list[TokenLayout], list[str]]:
        """See `Processing`."""
        return self.of_texts.texts(texts, truncate=truncate)

    def shown(self, prepared: PreparedImage) -> Picture:
        """See `Processing`."""
        return self.of_pictures.shown(prepared)


@dataclass(frozen=True, eq=False)
class DualEncoder:
    """A dual encoder, ready to be explained.

    Attributes:
        name: what it was loaded by.
        loaded: short hash of the weights when they were loaded, and their version then.
        notice: one sentence that readers of its results should know, "" where there is none.
        model: the model itself, untouched.
        image, text: its towers.
        processing: makes their inputs.
        scale: reads the factor of the softmax over texts from the model; None where it defines no such probability.
    """

    name: str
    loaded: tuple[str, Any]
    notice: str
    model: nn.Module
    image: Tower
    text: Tower
    processing: Processing
    scale: Callable[[], Tensor] | None = None
    _texts: Store = field(default_factory=lambda: Store(_TEXTS), init=False, repr=False)

    @property
    def revision(self) -> str:
        """Short hash of the weights as they are."""
        return self.loaded[0] if self.loaded[1] == version_of(self.model) else fingerprint(self.model)

    @property
    def logit_scale(self) -> float | None:
        """The factor of the softmax over texts; None where the model defines no such probability."""
        return None if self.scale is None else float(self.scale().detach().float())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return device_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return dtype_of(self.model)

    def tower(self, side: Side) -> Tower:
        """The tower of a side."""
        return self.image if side == "image" else self.text

    def kept_texts(self, key: Hashable, make: Callable[[], _T], size: Callable[[_T], int]) -> _T:
        """What is made of a list of texts, once while the weights stay: contrasts, banks and phrases come again.

        The key is the whole list, never one text of it, so that what is found is what would be made, to the bit. The
        most recent lists are kept, in 16 MB.
        """
        whole = (key, version_of(self.model))
        found: _T | None = self._texts.get(whole)
        if found is None:
            found = make()
            self._texts.put(whole, found, size(found))
        return found
